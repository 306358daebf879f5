"""An adapter's weights on disk: one safetensors file that describes itself and carries a checksum.

The file's metadata repeats config.json, so that the one file is the whole adapter: it is replaced in one move, and a
reader sees all of the old adapter or all of the new one, whenever the writer is killed. config.json and the card beside
it are copies for people and for the Hub.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from guidefold.checksums import checksum
from guidefold.errors import InputError, ModelError
from guidefold.files import SEAL, exists, read_object, replacing
from guidefold.texts import reason

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
KEY = "guidefold"  # the metadata's one entry: safetensors writes several in an order that differs from run to run
FLOATS = ("F64", "F32", "F16", "BF16")


def seal(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a description with the checksum of itself and of the weights."""
    rest = {name: value for name, value in json.loads(json.dumps(dict(described))).items() if name != SEAL}
    return {**rest, SEAL: checksum(weights, json.dumps(rest, sort_keys=True))}


def write_weights(path: Path, weights: Mapping[str, Tensor], sealed: Mapping[str, Any]) -> None:
    """Replace a weights file in one move. Raises OSError or SafetensorError."""
    with replacing(path) as draft:
        save_file(dict(weights), draft, metadata={KEY: json.dumps(dict(sealed))})


def read_description(folder: Path) -> dict[str, Any]:
    """Return what an adapter says of itself: its weights' own words, else config.json's. Raises InputError.

    Warns where the two differ, as after a kill between two moves or an edit.
    """
    own = own_description(folder / WEIGHTS)
    if own is None:
        return read_object(folder / CONFIG, "an adapter")
    if exists(folder / CONFIG):
        try:
            beside: Any = read_object(folder / CONFIG, "an adapter")
        except InputError as error:  # what cannot be read may be whole, and is not needed
            beside = own if isinstance(error.__cause__, OSError) else None
        if beside != own:
            warnings.warn(f"{folder / CONFIG} is not what {WEIGHTS} says of itself, which counts", stacklevel=4)
    return own


def own_description(path: Path) -> dict[str, Any] | None:
    """Return what a weights file says of itself, or None where it is missing, damaged or says nothing."""
    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {})[KEY])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_weights(path: Path, described: Mapping[str, Any], build: Callable[[], nn.Module]) -> nn.Module:
    """Return a module with the weights of a file, in float32.

    Names and shapes are compared before anything of that size is made. Raises ModelError where the file is missing,
    damaged, of other shapes or types, or where its checksum does not fit; warns where it carries none.
    """
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in build().state_dict().items()}
    try:
        with path.open("rb"), safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            check_layout(path, wanted, found)
            tensors = {name: file.get_tensor(name) for name in found}
    except PermissionError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}; give a folder that can be read") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is missing or damaged ({reason(error)}); fetch or save the adapter again") from error
    if SEAL not in described:
        warnings.warn(
            f"{path} carries no checksum, so that damage cannot be seen; save the adapter again", stacklevel=4
        )
    elif described != seal(described, tensors):
        raise ModelError(f"{path} is damaged: its checksum does not fit; fetch or save the adapter again")
    if bad := [name for name, value in tensors.items() if not is_finite(value)]:
        raise ModelError(f"{path} has {bad[0]} with a number that is not finite; save the adapter again")
    module = build()
    module.load_state_dict({name: value.float() for name, value in tensors.items()})
    return module


def check_layout(path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]) -> None:
    """Raise ModelError unless a file has the weights that are wanted, of floating-point numbers."""
    for name in [*wanted, *found]:
        if name not in found or name not in wanted:
            raise ModelError(
                f"{path} is not of the adapter that its description tells: "
                f"{'it lacks' if name in wanted else 'it has'} {name}; fetch or save the adapter again"
            )
        shape = tuple(found[name].get_shape())
        if shape != wanted[name]:
            raise ModelError(
                f"{path} is not of the adapter that its description tells: "
                f"{name} has shape {list(shape)}, not {list(wanted[name])}; fetch or save the adapter again"
            )
        if found[name].get_dtype() not in FLOATS:
            raise ModelError(f"{path} has {name} of type {found[name].get_dtype()}; weights are {', '.join(FLOATS)}")


def is_finite(value: Tensor) -> bool:
    """Tell whether all numbers are finite, in one pass."""
    return not value.numel() or math.isfinite(float(value.detach().float().abs().amax()))


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise InputError for weights that could not be loaded again."""
    if bad := [name for name, value in weights.items() if not is_finite(value)]:
        kind = str(weights[bad[0]].dtype).removeprefix("torch.")
        raise InputError(f"{bad[0]} has a number that is not finite in {kind}; save other weights, or in float32")
