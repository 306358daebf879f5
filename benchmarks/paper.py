"""The two designs of adapter guidance distillation as the paper (2503.07274) has them, from its description.

Unlike this library's designs of these names they are not anchored at scale 1, and every adapted attention has its own
encoder. Unlike the public reference code they see the scale through a smooth code, which all peers share, and the
prompt by its tokens: with random phases and a single condition token they would not be at their best.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.adapters.conditions import SCALE_FEATURES, TIME_FEATURES, ConditionSpec, noisiest, scale_code, time_code
from guidefold.adapters.layers import rows_like
from guidefold.adapters.targets import attentions, shape_of
from guidefold.denoiser import read_call
from peers import Peer, zeros

WIDTH = 128


class Encoder(nn.Module):
    """Conditions as tokens [B, 2 + T, W]: one of the scale, one of the timestep, and the prompt's or the class's."""

    def __init__(self, spec: ConditionSpec) -> None:
        super().__init__()
        told = [nn.Linear(width, WIDTH) for width in spec.tokens.values()]
        told += [nn.Embedding(count, WIDTH) for count in spec.labels.values()]
        self.parts = nn.ModuleList([nn.Linear(SCALE_FEATURES, WIDTH), nn.Linear(TIME_FEATURES, WIDTH), told[0]])

    def forward(self, scale: Tensor, time: Tensor, prompt: Tensor) -> Tensor:
        given = (scale[:, None], time[:, None], prompt)
        return torch.cat([part(value) for part, value in zip(self.parts, given, strict=True)], dim=1)


class Block(nn.Module):
    """What one attention has of its own; its way out starts at zero."""

    def __init__(self, spec: ConditionSpec, d_out: int) -> None:
        super().__init__()
        self.encoder, self.out = Encoder(spec), zeros(WIDTH, d_out)


class OffsetBlock(Block):
    """An MLP of the conditions, added to every token."""

    def __init__(self, spec: ConditionSpec, d_in: int, d_out: int) -> None:
        super().__init__(spec, d_out)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())

    def forward(self, inputs: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        tokens = self.encoder(*conditions)
        code = tokens[:, 0] + tokens[:, 1] + tokens[:, 2:].mean(1)
        return self.out(self.mlp(code))[:, None]


class CrossAttentionBlock(Block):
    """Queries from the attention's input tokens, keys and values from the conditions' tokens."""

    def __init__(self, spec: ConditionSpec, d_in: int, d_out: int) -> None:
        super().__init__(spec, d_out)
        self.query, self.memory = nn.Linear(d_in, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, inputs: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        keys, values = self.memory(self.encoder(*conditions)).chunk(2, dim=-1)
        return self.out(nn.functional.scaled_dot_product_attention(self.query(inputs), keys, values))


class Paper(Peer):
    """A block at the output of every attention of the denoiser."""

    kind: type[OffsetBlock | CrossAttentionBlock]

    def __init__(self, pipe: Any, spec: ConditionSpec) -> None:
        super().__init__(pipe, spec)
        self.name = next(iter([*spec.tokens, *spec.labels]))
        self.targets = list(attentions(self.denoiser).values())  # in a list: not children
        self.blocks = nn.ModuleList(self.kind(spec, *shape_of(target)) for target in self.targets)

    def changes(self, scale: Tensor) -> Iterator[AbstractContextManager]:
        conditions: list[Tensor] = []

        def read(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            call = read_call(module, args, kwargs)
            time = noisiest(call.tensors[call.timestep], call.rows) * self.spec.timestep_scale
            prompt = call.tensors[self.name]
            prompt = prompt if prompt.dim() > 1 else prompt[:, None]  # a class is a sequence of one
            code = rows_like(scale_code(scale.to(prompt.device)), prompt)
            conditions[:] = code, time_code(time), prompt

        def adapted(block: nn.Module) -> Any:
            return lambda module, args, output: output + block(args[0], tuple(conditions))

        yield self.denoiser.register_forward_pre_hook(read, with_kwargs=True)
        for target, block in zip(self.targets, self.blocks, strict=True):
            yield target.register_forward_hook(adapted(block))


class PaperOffset(Paper):
    """The paper's offset."""

    kind = OffsetBlock
    learning_rate = 4e-3  # after 12 steps of 4 the loss was .97; at 1e-3 .98, at 1e-2 1.08


class PaperCrossAttention(Paper):
    """The paper's cross-attention."""

    kind = CrossAttentionBlock
    learning_rate = 1e-3  # after 12 steps of 4 the loss was .98; at 4e-3 1.00, at 1e-2 1.43
