"""The mathematics of guidance."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from guidefold.errors import ModelError


def classifier_free(pred_cond: Tensor, pred_uncond: Tensor, guidance_scale: Tensor) -> Tensor:
    """Return uncond + s (cond - uncond) for predictions [B, ...] and scales [B] (Ho & Salimans 2022, 2207.12598)."""
    return pred_uncond + per_row(guidance_scale, pred_cond) * (pred_cond - pred_uncond)


def per_row(values: Tensor, reference: Tensor) -> Tensor:
    """Shape values [B] so that they multiply a tensor [B, ...] row by row, in its dtype and on its device."""
    return values.to(reference).reshape(-1, *(1,) * (reference.dim() - 1))


class PerImageScale(float):
    """A guidance scale for pipelines that take only one: compared, it is the largest; computed with, every image's.

    It lets a batch of trajectories be recorded at different scales. The recorder verifies that a pipeline's guidance
    goes along with it before it relies on it. Raises ModelError for a tensor that has no row per image.
    """

    scales: list[float]

    def __new__(cls, scales: list[float]) -> "PerImageScale":
        self = super().__new__(cls, max(scales))
        self.scales = scales
        return self

    def __add__(self, other: Any) -> Any:
        return self._with(other, operator.add)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, operator.mul)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, operator.sub)

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, lambda own, theirs: theirs - own)

    __radd__, __rmul__ = __add__, __mul__

    def _with(self, other: Any, act: Callable[[Any, Any], Any]) -> Any:
        """Combine every image's scale with a number, with that image's scale of another dial, or with its row."""
        if isinstance(other, Tensor):
            return self._with_rows(other, act)
        if not isinstance(other, (int, float)):
            return NotImplemented
        others = other.scales if isinstance(other, PerImageScale) else [float(other)] * len(self.scales)
        return PerImageScale([act(one, two) for one, two in zip(self.scales, others, strict=True)])

    def _with_rows(self, rows: Tensor, act: Callable[[Any, Any], Any]) -> Tensor:
        """Combine with a tensor [B, ...] as torch multiplies it by a number: without rounding the scales first."""
        if len(self.scales) > 1 and rows.shape[:1] != (len(self.scales),):
            raise ModelError("guidance does not go along with one scale per image; set record_batch to 1")
        exact = rows.to(torch.promote_types(rows.dtype, torch.float32))
        scales = per_row(torch.tensor(self.scales, dtype=torch.float64), exact)
        return act(scales, exact).to(torch.result_type(rows, 1.0))
