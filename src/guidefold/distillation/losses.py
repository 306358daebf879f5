"""What the student is asked to minimise."""

from torch import Tensor

from guidefold.guidance import per_row

FLOOR = 0.05  # of a batch's mean energy: below it a state with hardly any guidance stops gaining weight


def guidance_loss(prediction: Tensor, pred_guided: Tensor, weight: Tensor) -> Tensor:
    """Return the share of the guidance that a student misses: 1 for the bare model, 0 for a perfect one.

    L = sum w |student - guided|^2 over predictions [B, ...]; the weights [B] are `guidance_weights` of a whole batch,
    so that the losses of its parts add up to its own.
    """
    error = (prediction.float() - pred_guided.float()).square()
    return (per_row(weight, error) * error).sum()


def guidance_weights(energy: Tensor) -> Tensor:
    """Return what each state's squared error counts for [B]: w = 1 / (|cond - guided|^2 + a floor), normalised.

    `energy` [B] is |cond - guided|^2. All states count alike, but for those whose guidance is near the floor or below.
    Plain squared errors would be those of the noisiest steps and the highest scales, where guidance is largest; but it
    is the later, small differences that bring out what the prompt asks for.
    """
    weight = 1 / (energy + FLOOR * energy.mean()).clamp(min=1e-12)
    return weight / (weight * energy).sum().clamp(min=1e-12)
