"""What the student is asked to minimise."""

from torch import Tensor

from guidefold.guidance import per_row


def guidance_loss(prediction: Tensor, pred_guided: Tensor, guidance_scale: Tensor, whole: Tensor) -> Tensor:
    """Return the share of the guidance difference that a student misses: 1 for the bare model, 0 for a perfect one.

    L = sum w |student - guided|^2 / sum w |cond - guided|^2 over predictions [B, ...], with w = 1 / (s - 1): plain
    squared errors grow with (s - 1)^2 and would leave low scales unlearnt, w = 1 / (s - 1)^2 would leave the high ones.
    The divisor `whole` is the `guidance_energy` of a whole batch: the losses of its parts add up to its own.
    """
    return weighted(prediction, pred_guided, guidance_scale) / whole


def guidance_energy(pred_cond: Tensor, pred_guided: Tensor, guidance_scale: Tensor) -> Tensor:
    """Return sum w |cond - guided|^2, what the bare model misses."""
    return weighted(pred_cond, pred_guided, guidance_scale).clamp(min=1e-12)


def weighted(prediction: Tensor, pred_guided: Tensor, guidance_scale: Tensor) -> Tensor:
    weight = 1 / (guidance_scale.float() - 1).clamp(min=0.1)
    error = (prediction.float() - pred_guided.float()).square()
    return (per_row(weight, error) * error).sum()
