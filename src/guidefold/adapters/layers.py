"""Layers that change the output of one target by a residual that is anchored at guidance scale 1.

Every layer is called as `layer(inputs, output, modulation, strength, tokens)` and returns the changed output: `inputs`
[B', ..., D_in] and `output` [B', ..., D_out] are the target's own (channels second for a convolution), `modulation` [B,
M] comes from the shared condition encoder through `prepare`, `strength` [B, 1] is u below. B' is a multiple of B where
a target sees frames or pixels as its batch. At strength 0 the output is returned unchanged, bit for bit; so it is at
initialisation.

Guidance adds (s - 1) times a difference that hardly depends on s itself. So the layer that makes the prediction has
strength u = s - 1, and those before it, which compute the difference, u = tanh(s - 1): with s - 1 everywhere they would
have to compute it anew for every scale, through nonlinearities that a strength of 7 overdrives.
"""

import torch
from torch import Tensor, nn

from guidefold.errors import ModelError


def rows_like(values: Tensor, reference: Tensor) -> Tensor:
    """Repeat values [B, ...] to the batch of `reference` [B * k, ...]."""
    repeats, rest = divmod(reference.shape[0], values.shape[0])
    if rest:
        raise ModelError(
            f"{values.shape[0]} guidance scales for a batch of {reference.shape[0]}; give one, or one per image"
        )
    return values if repeats == 1 else values.repeat_interleave(repeats, dim=0)


def spread(values: Tensor, reference: Tensor) -> Tensor:
    """Shape values [B, D] so that they multiply `reference` [B * k, ..., D]."""
    values = rows_like(values, reference)
    return values.reshape(values.shape[0], *(1,) * (reference.dim() - 2), values.shape[-1]).to(reference.dtype)


def linear(inputs: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.linear(inputs, weight.to(inputs.dtype))


def add_product(output: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Return output + hidden @ weight.T in one pass over memory; in place where no gradient is needed."""
    weight = weight.to(output.dtype).t()
    flat_hidden = hidden.reshape(-1, hidden.shape[-1]).to(output.dtype)
    if output.is_contiguous() and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        output.view(-1, output.shape[-1]).addmm_(flat_hidden, weight)
        return output
    return torch.addmm(output.reshape(-1, output.shape[-1]), flat_hidden, weight).view_as(output)


class Layer(nn.Module):
    """What the designs share: a zero-initialised way back to the target's output."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.zeros(d_out, rank))

    @staticmethod
    def modulation(rank: int) -> int:
        """Return how many numbers the layer wants from the condition encoder."""
        return rank

    @staticmethod
    def prepare(modulation: Tensor, strength: Tensor) -> Tensor:
        """Work out for all N targets at once, [B, N, M] and [B, 1, 1], what does not depend on their tokens."""
        return modulation


class Narrow(Layer):
    """What the designs share that read a target's inputs: a way down to the rank."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__(d_in, d_out, rank)
        self.down = nn.Parameter(torch.randn(rank, d_in) * d_in**-0.5)


class LowRank(Narrow):
    """A modulated low-rank update of a linear layer, of a reader or of the last: y + u B (g(conditions) * A x)."""

    @staticmethod
    def prepare(modulation: Tensor, strength: Tensor) -> Tensor:
        return (1 + modulation) * strength

    def forward(self, inputs: Tensor, output: Tensor, modulation: Tensor, strength: Tensor, tokens: Tensor) -> Tensor:
        if not inputs.numel():
            return output
        # [rank, rows]: CPUs are slower at the product that has [rows, rank], by up to a half
        hidden = self.down.to(inputs.dtype) @ inputs.reshape(-1, inputs.shape[-1]).t()
        gates = rows_like(modulation, inputs).to(hidden.dtype).t()[..., None]
        hidden = (hidden.reshape(len(hidden), gates.shape[1], -1) * gates).flatten(1)
        return add_product(output, hidden.t(), self.up)

    def folded(self, gates: Tensor) -> Tensor:
        """Return what the same change adds to a layer's weight [D_out, D_in], for one row's gates [rank] or [1]."""
        return (self.up * gates) @ self.down


class Delta(LowRank):
    """A plain low-rank update of a linear layer, y + u B A x: without gates, so that it folds into the weights."""

    @staticmethod
    def modulation(rank: int) -> int:
        return 0

    @staticmethod
    def prepare(modulation: Tensor, strength: Tensor) -> Tensor:
        return strength.expand(-1, modulation.shape[1], 1)


class LowRankConv(Layer):
    """The same update of a 2D convolution: A has the target's kernel, stride and padding, B is 1 by 1, as in LoRA."""

    def __init__(self, d_in: int, d_out: int, kernel: int, stride: int, padding: int, rank: int) -> None:
        super().__init__(d_in, d_out, rank)
        self.stride, self.padding = stride, padding
        self.down = nn.Parameter(torch.randn(rank, d_in, kernel, kernel) * (d_in * kernel**2) ** -0.5)

    def forward(self, inputs: Tensor, output: Tensor, modulation: Tensor, strength: Tensor, tokens: Tensor) -> Tensor:
        hidden = nn.functional.conv2d(inputs, self.down.to(inputs.dtype), stride=self.stride, padding=self.padding)
        gates = rows_like(modulation, inputs).to(hidden.dtype)[..., None, None]
        # a product, not a convolution by 1: CPUs are faster at it, by up to a third
        return output + (self.up.to(hidden.dtype) @ (hidden * gates).flatten(2)).view_as(output)

    def folded(self, gates: Tensor) -> Tensor:
        """Return what the same change adds to a convolution's weight [D_out, D_in, K, K], for one row's gates."""
        return ((self.up * gates) @ self.down.flatten(1)).unflatten(1, self.down.shape[1:])


class Offset(Layer):
    """The paper's offset: one vector made of the conditions is added to every token (2503.07274, section 4)."""

    @staticmethod
    def prepare(modulation: Tensor, strength: Tensor) -> Tensor:
        return nn.functional.gelu(modulation) * strength

    def forward(self, inputs: Tensor, output: Tensor, modulation: Tensor, strength: Tensor, tokens: Tensor) -> Tensor:
        return output + spread(linear(modulation, self.up), output)


class CrossAttention(Narrow):
    """The paper's cross-attention: the target's tokens look at condition tokens [B, T, 2 * rank], keys and values."""

    @staticmethod
    def modulation(rank: int) -> int:
        return 2 * rank

    def forward(self, inputs: Tensor, output: Tensor, modulation: Tensor, strength: Tensor, tokens: Tensor) -> Tensor:
        query = linear(inputs, self.down)
        # the encoder's code is one more token, so that scale and timestep are seen without any other condition;
        # the last one is zero: with the code alone to look at, queries would have no choice and learn nothing
        code = modulation[:, None].to(tokens.dtype)
        memory = torch.cat([tokens, code, torch.zeros_like(code)], dim=1)
        keys, values = rows_like(memory, query).to(query.dtype).chunk(2, dim=-1)
        hidden = nn.functional.scaled_dot_product_attention(query[:, None], keys[:, None], values[:, None])[:, 0]
        return add_product(output, hidden * spread(strength, hidden), self.up)


def layer_for(design: type[Layer], shape: tuple[int, ...], rank: int) -> Layer:
    """Return a layer for a target of this shape: widths, and for a convolution its kernel, stride and padding."""
    return LowRankConv(*shape, rank=rank) if len(shape) > 2 else design(*shape, rank=rank)  # pyright: ignore[reportCallIssue]


DESIGNS: dict[str, type[Layer]] = {
    "film": Delta,
    "cross_attention": CrossAttention,
    "offset": Offset,
    "lora": Delta,
}
