"""Guidance scales as users give them: checked, and counted from 1, where 1 is the model without guidance."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from guidefold.errors import InputError

Number = float | int | list[float] | Tensor
Scale = Number | Mapping[str, Number]


def as_scales(value: Scale, offs: dict[str, float], trained: tuple[float, float]) -> Tensor:
    """Return scales as a tensor [B], or [B, D] for D dials; warns where the first is outside the trained range.

    `offs` are the dials with the values at which they do nothing. One value is the first dial's, a dictionary names
    several. Raises InputError unless finite and at least off.
    """
    first = next(iter(offs))
    given = value if isinstance(value, Mapping) else {first: value}
    if unknown := sorted(given.keys() - offs.keys()):
        raise InputError(f"this adapter has no dial {unknown[0]}; choose from {', '.join(offs)}")
    columns = [
        column(name, given.get(name, off), off, trained if name == first else None) for name, off in offs.items()
    ]
    rows = max(len(one) for one in columns)
    if any(len(one) not in (1, rows) for one in columns):
        counts = ", ".join(f"{len(one)} of {name}" for name, one in zip(offs, columns, strict=True))
        raise InputError(f"there are {counts}; give one of each dial, or as many as images")
    scale = torch.stack([one.expand(rows) for one in columns], dim=1)
    return scale[:, 0] if len(offs) == 1 else scale


def numberless(value: Tensor) -> bool:
    """Tell whether a tensor has a shape but no numbers."""
    return value.device.type == "meta" or isinstance(value, FakeTensor)


def at_least(off: float, scale: Any) -> Any:
    """Raise scales below the one that does nothing to it: pipelines take both for no guidance."""
    if isinstance(scale, (int, float)):
        return max(scale, off)
    if isinstance(scale, (list, tuple)):
        return [at_least(off, one) for one in scale]
    if hasattr(scale, "__array__"):  # tensors, and numpy's arrays and numbers
        return torch.as_tensor(scale).clamp(min=off)
    return scale


def column(name: str, value: Number, off: float, trained: tuple[float, float] | None) -> Tensor:
    """Return one dial's scales [B], counted from 1."""
    try:
        scale = torch.as_tensor(value, dtype=torch.float32).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} is {value!r}; give a number, or one number per image") from error
    if torch.compiler.is_compiling() or numberless(scale):
        return scale + (1 - off)
    values = scale.tolist()
    if not values or not all(math.isfinite(one) for one in values):
        raise InputError(f"{name} is {value!r}; give a finite number")
    if min(values) < off:
        raise InputError(f"{name} is {min(values):g}; give at least {off:g}, which is the model without guidance")
    if trained is not None:
        warn_outside(name, [one for one in values if one > off], *trained)
    return scale + (1 - off)


def warn_outside(name: str, values: list[float], low: float, high: float) -> None:
    """Warn of scales that the adapter was not trained on."""
    outside = [one for one in values if not low <= one <= high]
    if outside:
        warnings.warn(
            f"{name} {outside[0]:g} is outside {low:g} to {high:g}, which the adapter was trained on", stacklevel=6
        )
