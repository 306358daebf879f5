"""What a call's rows have in common, and what of the code is the same at every step."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from guidefold.acting.ahead import work_ahead
from guidefold.acting.requests import Request
from guidefold.adapters.network import Modulations
from guidefold.adapters.scales import numberless
from guidefold.errors import InputError

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting


def per_image(request: Request, rows: int, device: torch.device) -> Tensor:
    """Return a request's scales with a row per image [B, ...]. Raises InputError unless they go into the batch."""
    scale = request.scale.to(device)
    if rows % scale.shape[0]:
        raise InputError(f"{scale.shape[0]} guidance scales for {rows} images; give one, or one per image")
    return scale if len(scale) == rows else scale.repeat_interleave(rows // scale.shape[0], dim=0)


def first_of(value: Tensor, rows: int) -> Tensor:
    """Return the first image's part of a condition [B, ...], of a scalar or of one with several rows an image."""
    return value[: max(1, len(value) // rows)] if value.dim() else value


def all_alike(values: Tensor, rows: int) -> bool:
    """Tell whether all images have the same; of a value that is expanded it is known without waiting for a GPU.

    One without numbers counts as the same.
    """
    if values.dim() == 0 or values.shape[0] == 1 or values.stride(0) == 0 or numberless(values):
        return True
    each = values.reshape(rows, -1)
    return bool((each == each[:1]).all())


def remembered(adapter: "Acting", request: Request, scale: Tensor, conditions: dict[str, Tensor]) -> Tensor | None:
    """Return what of the code is the same at every step, worked out once for as long as the same conditions come."""
    if torch.is_grad_enabled():
        return None
    memory, seen = request.memory, [value for name, value in conditions.items() if adapter.sees(name)]
    key = [len(scale), *map(whereabouts, [request.scale, *seen])]
    if memory.key != key:
        memory.key, memory.held = key, [request.scale, *seen]
        memory.alike = all(all_alike(value, len(scale)) for value in seen)
        memory.code = None if adapter.encoder is None else adapter.encoder.standing(scale, conditions)
    return memory.code


def of_step(
    adapter: "Acting", request: Request, scale: Tensor, conditions: dict[str, Tensor], code: Tensor | None
) -> tuple[Modulations, int]:
    """Return modulations, and the row of them that is this step's, of scales and a code of which the first row counts.

    They are worked out ahead where the code was the same a call before: one that changes would make it of no use.
    """
    memory, timestep = request.memory, conditions[adapter.spec.timestep]
    before, memory.before = memory.before, code
    if code is not None and before is code and memory.times is not None:
        ahead, asked = memory.ahead, request.scale
        row = ahead.row(asked, code, timestep) if ahead is not None else None
        if row is None:
            ahead, row = work_ahead(adapter, asked, scale, code, timestep, memory.times()), 0
        memory.ahead = ahead
        if ahead is not None:
            return ahead.made, row
    return adapter.modulations(scale[:1], conditions, torch.float32, None if code is None else code[:1]), 0


def whereabouts(value: Tensor) -> tuple:
    """Return what tells a tensor from any other that is alive, and from itself after a change."""
    version = id(value) if value.is_inference() else value._version
    place = id(value) if numberless(value) else value.data_ptr()
    return place, value.shape, value.stride(), value.dtype, version
