"""What the student is asked to minimise."""

from torch import Tensor

from guidefold.guidance import per_row


def guidance_loss(prediction: Tensor, pred_guided: Tensor, pred_cond: Tensor, guidance_scale: Tensor) -> Tensor:
    """Return the share of the guidance difference that a student misses: 1 for the bare model, 0 for a perfect one.

    L = sum w |student - guided|^2 / sum w |cond - guided|^2 over predictions [B, ...], with w = 1 / (s - 1): plain
    squared errors grow with (s - 1)^2 and would leave low scales unlearnt, w = 1 / (s - 1)^2 would leave the high ones.
    """
    weight = 1 / (guidance_scale.float() - 1).clamp(min=0.1)
    missed = per_row(weight, prediction.float()) * (prediction.float() - pred_guided.float()).square()
    whole = per_row(weight, prediction.float()) * (pred_cond.float() - pred_guided.float()).square()
    return missed.sum() / whole.sum().clamp(min=1e-12)
