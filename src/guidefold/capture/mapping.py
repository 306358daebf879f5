"""What a scheduler receives, as an affine image of the denoiser's answer: m = a * o[index] + b, element by element.

Pipelines negate predictions, drop variance channels, crop or pin frames, precondition. Answers that are not
predictions (zeros, ones, digits of each element's place) teach a, index and b; the guided prediction then goes back
through the map to what the denoiser would have to answer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 16  # digits that half precision tells apart after any sensible scaling


class NotAffine(Exception):
    """What is received is no affine image of the answer."""


@dataclass(frozen=True, kw_only=True)
class OutputMap:
    """m = a * o[index] + b for the elements [M] a scheduler receives of an answer of N numbers."""

    index: Tensor
    a: Tensor
    b: Tensor
    size: int

    def forward(self, answer: Tensor) -> Tensor:
        """Return what the scheduler receives [M] of an answer [N]."""
        return self.a * answer.float()[self.index] + self.b

    def backward(self, received: Tensor, answer: Tensor) -> Tensor:
        """Return the answer [N] of which the scheduler receives `received` [M]; `answer` fills what it never sees."""
        seen = self.a.abs() > 0
        result = answer.float().clone()
        result[self.index[seen]] = (received.reshape(-1).float()[seen] - self.b[seen]) / self.a[seen]
        return result

    @property
    def mask(self) -> Tensor:
        """Which of an answer's numbers [N] the scheduler sees."""
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[self.index[self.a.abs() > 0].cpu()] = True
        return mask

    @property
    def is_identity(self) -> bool:
        whole = len(self.index) == self.size and torch.equal(self.index.cpu(), torch.arange(self.size))
        return whole and bool((self.a == 1).all()) and bool((self.b == 0).all())

    def kind(self) -> str:
        """Say in a few words what the map does."""
        seen = self.a.abs() > 0
        a, words = self.a[seen], []
        even = not len(a) or torch.allclose(a, a[:1], rtol=1e-3)
        if not even:
            words.append("scaled by element")
        elif len(a) and not math.isclose(abs(float(a[0])), 1, rel_tol=1e-3):
            words.append("scaled")
        if len(a) and (a < 0).all():
            words.append("negated")
        if not seen.all():
            words.append(f"pins {1 - float(seen.float().mean()):.0%}")
        if (self.b[seen] != 0).any():
            words.append("shifted")
        if not self.mask.all():
            words.append(f"takes {float(self.mask.float().mean()):.0%} of the output")
        elif not torch.equal(self.index.cpu(), torch.arange(self.size)):
            words.append("reordered")
        return ", ".join(words) or "identity"


def identity(size: int, like: Tensor) -> OutputMap:
    """Return the map of a scheduler that receives answers of N numbers as they are."""
    one = torch.ones(size, device=like.device)
    return OutputMap(index=torch.arange(size, device=like.device), a=one, b=torch.zeros_like(one), size=size)


def cleaned(a: Tensor) -> Tensor:
    """Return scales without what is left of rounding where nothing of the answer arrives."""
    return torch.where(a.abs() > 1e-3 * a.abs().max(), a, 0) if len(a) else a


def learn_maps(probe: Callable[[Callable[[int], Tensor]], list[Tensor]], sizes: list[int]) -> list[OutputMap]:
    """Learn the map of every step from `probe(fill)`: what each receives [M] when an answer of N numbers is `fill(N)`.

    `sizes` holds N for each step. Raises NotAffine where what is received is no affine image.
    """
    zero = probe(lambda size: torch.zeros(size))
    one = probe(lambda size: torch.ones(size))
    shifts = [value.reshape(-1).float() for value in zero]
    scales = [cleaned(value.reshape(-1).float() - shift) for value, shift in zip(one, shifts, strict=True)]
    # whole numbers: in float32 places beyond 2^24 would be their neighbours'
    digits, place = [torch.zeros_like(shift, dtype=torch.long) for shift in shifts], 1
    while place < max(sizes):
        seen = probe(lambda size, place=place: (torch.arange(size) // place % BASE).float())
        for total, value, a, b in zip(digits, seen, scales, shifts, strict=True):
            digit = torch.where(a.abs() > 0, (value.reshape(-1).float() - b) / a, 0)
            if ((digit - digit.round()).abs() > 0.2).any():
                raise NotAffine
            total += digit.round().long() * place
        place *= BASE
    maps = []
    for index, a, b, size in zip(digits, scales, shifts, sizes, strict=True):
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < size):
            raise NotAffine
        maps.append(OutputMap(index=index, a=a, b=b, size=size))
    return maps
