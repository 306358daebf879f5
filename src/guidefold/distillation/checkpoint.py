"""Checkpoints: adapter, averaged weights and optimizer in one safetensors file, written in one piece."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guidefold.checksums import checksum
from guidefold.distillation.ema import Average
from guidefold.errors import InputError, TrainingError
from guidefold.files import SEAL, exists, replacing
from guidefold.keeping import Adapter
from guidefold.texts import reason

NAME = "checkpoint.safetensors"


def prefixed(prefix: str, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value.detach().cpu().contiguous() for name, value in tensors}


def save_checkpoint(
    folder: Path, progress: dict[str, Any], adapter: Adapter, average: Average, optimizer: torch.optim.Optimizer
) -> None:
    """Replace the folder's checkpoint; `progress` holds the step to go on from and the best validation so far."""
    tensors = prefixed("adapter", adapter.named_parameters()) | prefixed("average", average.values.items())
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= prefixed(f"optimizer.{index}", ((name, torch.as_tensor(value)) for name, value in state.items()))
    said = json.dumps(progress, sort_keys=True)
    record = json.dumps({**progress, SEAL: checksum(tensors, said)})
    try:
        with replacing(folder / NAME) as draft:
            save_file(tensors, draft, metadata={"progress": record})
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"cannot write a checkpoint to {folder}: {error}; the one before is kept, make room and run again"
        ) from error


def load_checkpoint(
    folder: Path, adapter: Adapter, average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore from the folder's checkpoint and return its progress, or None where there is none yet.

    Raises TrainingError, and changes nothing, where it is damaged or its checksum does not fit.
    """
    path = folder / NAME
    if not exists(path):
        return None
    try:
        with path.open("rb"), safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = progress.pop(SEAL, None)
        if known is not None and known != checksum(tensors, json.dumps(progress, sort_keys=True)):
            raise InputError("its checksum does not fit")
        check_progress(progress)
        restore(tensors, adapter, average, optimizer)
    except PermissionError as error:
        raise TrainingError(f"cannot read {path}: {error.strerror}; give a folder of yours") from error
    except (OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{path} is damaged ({reason(error)}); delete it to start this run again") from error
    return progress


def check_progress(progress: dict[str, Any]) -> None:
    """Raise InputError unless a checkpoint says where to go on."""
    if progress.keys() != {"step", "best_step", "recovered", "parts", "row"}:
        raise InputError(f"it tells {', '.join(map(str, progress)) or 'nothing'}")
    for name, least in (("step", 0), ("best_step", 0), ("parts", 1)):
        if not isinstance(progress[name], int) or progress[name] < least:
            raise InputError(f"{name} is {progress[name]!r}")
    recovered, row = progress["recovered"], progress["row"]
    if recovered is not None and not (isinstance(recovered, float) and math.isfinite(recovered)):
        raise InputError(f"recovered is {recovered!r}")
    if row is not None and not (isinstance(row, dict) and isinstance(row.get("loss"), float)):
        raise InputError(f"row is {row!r}")


def restore(tensors: dict[str, Tensor], adapter: Adapter, average: Average, optimizer: torch.optim.Optimizer) -> None:
    """Copy a checkpoint's tensors to where they belong. Raises InputError where one is missing or of another shape."""
    own, saved = part(tensors, "adapter"), part(tensors, "average")
    for name, value in average.values.items():
        for found in (own, saved):
            if name not in found or found[name].shape != value.shape or found[name].dtype != value.dtype:
                raise InputError(f"{name} is missing or of another shape")
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part(tensors, "optimizer").items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    average.copy(own, adapter)
    for name, value in average.values.items():
        value.copy_(saved[name])


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
