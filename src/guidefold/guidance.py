"""The mathematics of guidance."""

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
    """A guidance scale for pipelines that take only one: compared, it is the largest; multiplied, every image's own.

    It lets a batch of trajectories be recorded at different scales. The recorder verifies that a pipeline's guidance
    goes along with it before it relies on it.
    """

    scales: Tensor

    def __new__(cls, scales: list[float]) -> "PerImageScale":
        self = super().__new__(cls, max(scales))
        self.scales = torch.tensor(scales)
        return self

    def __mul__(self, other: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(other, Tensor):
            if len(self.scales) > 1 and other.shape[:1] != self.scales.shape:
                raise ModelError("guidance does not go along with one scale per image; set record_batch to 1")
            return per_row(self.scales, other) * other
        return super().__mul__(other)  # pyright: ignore[reportArgumentType, reportCallIssue]

    __rmul__ = __mul__  # pyright: ignore[reportAssignmentType]
