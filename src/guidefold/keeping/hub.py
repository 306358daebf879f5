"""Adapters on disk and on the Hub: config.json, model.safetensors and a README.md; never a pickle."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn

from guidefold.errors import InputError, ModelError
from guidefold.files import check_plain, exists, make_folder, read_object, replace_text, sweep
from guidefold.keeping.adapter import Adapter
from guidefold.keeping.card import CARD, group_card, model_card
from guidefold.keeping.described import described
from guidefold.keeping.group import INDEX, AdapterGroup
from guidefold.keeping.weights import (
    CONFIG,
    WEIGHTS,
    check_finite,
    own_description,
    read_description,
    read_weights,
    seal,
    write_weights,
)
from guidefold.texts import reason, visible

FORMAT = 2
README = "README.md"
DEMO = Path(__file__).parents[1] / "demo"
BUNDLED = {f"bundled{kind}": DEMO / f"adapter{kind}" for kind in ("", "-dit", "-sd3")}  # what comes with guidefold


def describe(adapter: Adapter) -> dict[str, Any]:
    """Return what config.json says."""
    from guidefold import __version__

    return {
        "format": FORMAT,
        "guidefold": __version__,
        "adapter": adapter.config.to_dict(),
        "spec": adapter.spec.to_dict(),
        "shapes": {name: list(shape) for name, shape in adapter.shapes.items()},
        "trained": adapter.trained,
    }


def save_pretrained(adapter: Adapter, folder: str | Path, *, dtype: torch.dtype | None = None, name: str = "") -> Path:
    """Write an adapter to a folder: its weights, config.json and a model card. Raises InputError if it cannot be.

    The weights describe themselves and are replaced in one move, so that a reader sees all of the old adapter or all of
    the new one, whenever this is interrupted; see `keeping.weights`. Nothing that is not of guidefold is written over.
    """
    weights = {key: value.detach().to("cpu", dtype).contiguous() for key, value in adapter.state_dict().items()}
    check_finite(weights)
    folder = make_folder(folder)
    check_ours(folder)
    sealed = seal(describe(adapter), weights)
    try:
        sweep(folder)
        write_weights(folder / WEIGHTS, weights, sealed)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write an adapter to {folder}: {error}; make room, or give another folder") from error
    replace_text(folder / CONFIG, json.dumps(sealed, indent=2) + "\n")
    if not exists(folder / README) or is_our_card(folder / README):
        replace_text(folder / README, model_card(adapter, name or folder.name))
    return folder


def check_ours(folder: Path) -> None:
    """Raise InputError unless an adapter can be written to a folder without writing over what is somebody else's."""
    for name in (WEIGHTS, CONFIG, README):
        check_plain(folder / name)
    if own_description(folder / WEIGHTS) is not None or is_our_config(folder / CONFIG):
        return
    if foreign := [name for name in (WEIGHTS, CONFIG, README) if exists(folder / name)]:
        raise InputError(f"{folder} holds {foreign[0]}, which guidefold did not write; give another folder")


def is_our_config(path: Path) -> bool:
    try:
        return {"guidefold", "adapter", "shapes"} <= read_object(path, "an adapter").keys()
    except InputError:
        return False


def is_our_card(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(CARD[: CARD.index("\ntags")])
    except (OSError, ValueError):
        return False


def find_folder(source: str | Path) -> Path:
    """Return the local folder of an adapter or a group, fetched from the Hub if it is none. Raises InputError."""
    if not str(source):
        raise InputError("the adapter's name is empty; give a folder or a Hub name")
    folder = BUNDLED.get(str(source), Path(source))
    if any(exists(folder / name) for name in (CONFIG, INDEX)) or own_description(folder / WEIGHTS) is not None:
        return folder
    if exists(folder):
        raise InputError(
            f"{folder} holds no adapter: there is no config.json; give the folder that save_pretrained wrote"
        )
    try:
        return Path(snapshot_download(str(source), allow_patterns=["*config.json", f"*{WEIGHTS}", INDEX]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        told = reason(error).partition(". ")[0]
        raise InputError(f"no adapter at {source}: neither a folder here nor found on the Hub ({told})") from error


def load(source: str | Path) -> Adapter | AdapterGroup:
    """Load an adapter, or the adapters of a pipeline with several denoisers. Raises InputError or ModelError."""
    folder = find_folder(source)
    return AdapterGroup.from_pretrained(folder) if exists(folder / INDEX) else from_pretrained(folder)


def from_pretrained(source: str | Path) -> Adapter:
    """Load an adapter from a folder or the Hub, not attached to anything. Raises InputError or ModelError.

    What the files say is checked before anything is built, and the weights against their checksum.
    """
    folder = find_folder(source)
    if exists(folder / INDEX):
        raise InputError(f"{source} holds an adapter for each of several denoisers; use guidefold.load")
    try:
        values = read_description(folder)
        if values["format"] != FORMAT:
            raise ModelError(
                f"{folder} has adapter format {visible(values['format'])[:80]}, this guidefold reads {FORMAT}; "
                "use the one that wrote it"
            )
        found = described(values)

        def build() -> Adapter:
            return Adapter(found.config, found.spec, dict(found.shapes))

        adapter = read_weights(folder / WEIGHTS, values, build)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error.__cause__, OSError):
            raise  # what cannot be read may be whole
        raise ModelError(f"{folder / CONFIG} describes no adapter ({reason(error)}); save the adapter again") from error
    assert isinstance(adapter, Adapter)
    adapter.trained = found.trained
    return adapter.eval()


@torch.no_grad()
def start_from(adapter: Adapter, source: str | Path) -> None:
    """Give an adapter the weights of a saved one; conditions and targets that are new to it start without effect.

    What it says of its training counts the saved one's steps. Raises InputError or ModelError, and ModelError where the
    saved one is of another shape.
    """
    other = from_pretrained(source)
    states = (one.state_dict() for one in (adapter, other))
    ours, theirs = ({key: value for key, value in one.items() if not of_targets(key)} for one in states)
    unlike = [name for name, value in theirs.items() if name not in ours or ours[name].shape != value.shape]
    unlike += [name for name, shape in other.shapes.items() if adapter.shapes.get(name) != shape]
    alike = adapter.config.design == other.config.design and adapter.spec.output == other.spec.output
    if unlike or not alike or adapter.config.rank != other.config.rank:
        what = unlike[0] if unlike else "design, rank or output layer"
        same = {name: value for name, value in other.config.to_dict().items() if value is not None}
        wanted = ", ".join(f"{name} {value}" for name, value in same.items())
        raise ModelError(f"cannot start from {source}: it differs in {what}; give {wanted} and the same conditions")
    new = {name: torch.zeros_like(value) for name, value in ours.items() if name not in theirs and is_last(name)}
    adapter.load_state_dict(new | theirs, strict=False)
    nn.init.zeros_(adapter.heads.weight)
    layers, places = dict(zip(adapter.layered, adapter.layers, strict=True)), adapter.heads.rows()
    for (name, rows), layer in zip(other.heads.rows().items(), other.layers, strict=True):
        layers[name].load_state_dict(layer.state_dict())
        adapter.heads.weight[places[name]] = other.heads.weight[rows]
        adapter.heads.bias[places[name]] = other.heads.bias[rows]
    if adapter.film is not None and other.film is not None:
        adapter.film.take(other.film)
    known = [other.trained[name] for name in ("steps", "steps_before") if name in other.trained]
    adapter.trained["steps_before"] = sum(known)


def of_targets(key: str) -> bool:
    """Tell whether a weight is one target's own, or has rows for all targets."""
    return key.startswith(("layers.", "heads.", "film.head."))


def is_last(name: str) -> bool:
    """Tell whether a weight of the condition encoder is the last on the way of its condition."""
    return name.startswith("encoder.vectors.") or (name.startswith("encoder.pools.") and ".out." in name)


def push_to_hub(adapter: Adapter | AdapterGroup, repository: str, *, private: bool = False) -> str:
    """Upload an adapter or a group to a Hub repository such as `me/sd-folded`, and return the address of the commit.

    Raises InputError where the Hub refuses it.
    """
    with TemporaryDirectory() as folder:
        if isinstance(adapter, AdapterGroup):
            adapter.save_pretrained(folder)
            (Path(folder) / README).write_text(group_card(adapter, repository), encoding="utf-8")
        else:
            save_pretrained(adapter, folder, name=repository)
        return upload(folder, repository, private=private)


def upload(folder: str | Path, repository: str, *, private: bool) -> str:
    """Upload a folder to a Hub repository and return the address of the commit. Raises InputError."""
    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True, private=private)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise InputError(
            f"cannot push to {repository} ({reason(error)}); log in, or give a repository of yours"
        ) from error
