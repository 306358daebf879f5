"""A denoiser's answer, whatever holds it: its tensors, and the same answer with others in their place."""

from typing import Any

import torch
from torch import Tensor


def leaves(answer: Any) -> list[Tensor]:
    """Return the floating point tensors of an answer in order: a tensor, a tuple, a list, or an output object."""
    if isinstance(answer, Tensor):
        return [answer] if answer.is_floating_point() else []
    parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, (list, tuple)) else ()
    return [leaf for part in parts for leaf in leaves(part)]


def refilled(answer: Any, tensors: list[Tensor]) -> Any:
    """Return the same answer around other tensors, one for each of its `leaves`."""
    rest = list(tensors)

    def fill(value: Any) -> Any:
        if isinstance(value, Tensor):
            return rest.pop(0) if value.is_floating_point() else value
        if isinstance(value, dict):
            filled = {key: fill(item) for key, item in value.items()}
            return type(value)(**filled) if all(isinstance(key, str) for key in filled) else type(value)(filled)
        return type(value)(fill(item) for item in value) if isinstance(value, (list, tuple)) else value

    return fill(answer)


def packed(answer: Any) -> Tensor:
    """Return an answer's numbers in one row [N]."""
    return torch.cat([leaf.detach().reshape(-1) for leaf in leaves(answer)])


def unpacked(answer: Any, numbers: Tensor) -> Any:
    """Return the same answer with numbers [N] in place of its own: the inverse of `packed`."""
    parts = numbers.split([leaf.numel() for leaf in leaves(answer)])
    made = [part.view(leaf.shape).to(leaf.dtype) for part, leaf in zip(parts, leaves(answer), strict=True)]
    return refilled(answer, made)


def by_image(answer: Any, images: int) -> Tensor:
    """Return an answer's numbers image by image: [images, ...] where one tensor holds them, else [images, N].

    Frames or pixels in the batch dimension become a second one; an answer in a list has an item per image.
    """
    found = leaves(answer)
    first = next(iter(answer.values()), None) if isinstance(answer, dict) else answer[0]
    if isinstance(first, (list, tuple)) and len(first) == images == len(found):
        return torch.stack(found)
    if len(found) == 1:
        rows = found[0].shape[0]
        return found[0] if rows == images else found[0].reshape(images, rows // images, *found[0].shape[1:])
    return torch.cat([leaf.reshape(images, -1) for leaf in found], dim=1)
