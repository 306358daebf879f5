"""Checkpoints: adapter, averaged weights and optimizer in one safetensors file, written in one piece."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from guidefold.distillation.ema import Average
from guidefold.errors import TrainingError
from guidefold.keeping import Adapter

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
    partial = folder / f"{NAME}.partial"
    try:
        save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
        partial.replace(folder / NAME)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise TrainingError(
            f"cannot write a checkpoint to {folder}: {error}; the one before is kept, make room and run again"
        ) from error


def load_checkpoint(
    folder: Path, adapter: Adapter, average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore from the folder's checkpoint and return its progress, or None where there is none yet."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            progress = json.loads(file.metadata()["progress"])
        restore(tensors, adapter, average, optimizer)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path} is damaged ({reason}); delete it to start this run again") from error
    return progress


def restore(tensors: dict[str, Tensor], adapter: Adapter, average: Average, optimizer: torch.optim.Optimizer) -> None:
    """Copy a checkpoint's tensors to where they belong."""
    average.copy(part(tensors, "adapter"), adapter)
    saved = part(tensors, "average")
    for name, value in average.values.items():
        value.copy_(saved[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in part(tensors, "optimizer").items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
