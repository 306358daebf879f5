"""What targets are given and put out, as tokens [B, T, D] and back."""

import torch
from torch import Tensor


def tokens_of(inputs: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return an attention's input and output as tokens [B, T, D], where it is given pictures [B, C, H, W].

    Some attentions put out their heads apart, [B, T, H, D / H].
    """
    if inputs.dim() == 4:
        return inputs.flatten(2).mT, output.flatten(2).mT
    return inputs, output.flatten(inputs.dim() - 1)


def shaped_like(output: Tensor, inputs: Tensor, tokens: Tensor) -> Tensor:
    """Return what `tokens_of` made of an output as it was, in memory too, or later layers round otherwise."""
    if tokens.shape == output.shape:
        return tokens
    if inputs.dim() != 4:
        return tokens.view(output.shape)
    return torch.empty_like(output).copy_(tokens.mT.reshape(output.shape))


def batch_first(inputs: Tensor, output: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return a linear layer's input and output [B, S, D] where it is given sequences first, [S, B, D]."""
    if output.dim() == 3 and output.shape[0] != rows == output.shape[1]:
        return inputs.transpose(0, 1), output.transpose(0, 1)
    return inputs, output
