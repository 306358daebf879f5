"""The network of an adapter: conditions in, modulations of a denoiser's parameters and layers out."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from guidefold.adapters.conditions import ConditionEncoder, ConditionSpec
from guidefold.adapters.film import Film
from guidefold.adapters.heads import Heads, kinds_of, layered, make_layers
from guidefold.adapters.layers import DESIGNS, CrossAttention, Delta
from guidefold.adapters.places import find_places, is_place, place_shape
from guidefold.adapters.readers import find_readers, module_of
from guidefold.adapters.targets import find_deltas, find_targets, shape_of, unwrapped
from guidefold.config import AdapterConfig
from guidefold.errors import ModelError


@dataclass(frozen=True)
class Modulations:
    """What a denoiser's call is changed by: `film` [B, N] at all places, `parts` and the rest for layers."""

    film: Tensor | None
    parts: list[Tensor]
    strength: Tensor
    tokens: Tensor


class Network(nn.Module):
    """Adapter guidance distillation (2503.07274): one forward pass that predicts what guidance would have.

    `shapes` names the targets with their widths (see `target_shape`). It computes, and changes no model.
    """

    def __init__(self, config: AdapterConfig, spec: ConditionSpec, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.config, self.spec, self.shapes = config, spec, shapes
        self.trained: dict[str, Any] = {}
        seen = spec if config.see_condition else spec.unseeing()
        self.encoder = None if config.design == "lora" else ConditionEncoder(seen, config.width)
        self.film = Film(shapes, config.width, config.squeeze) if any(map(is_place, shapes)) else None
        self.layers = make_layers(config, shapes, spec.output)
        self.heads = Heads(config, shapes, spec.output)
        memory = sum(spec.tokens.values()) if DESIGNS[config.design] is CrossAttention else 0
        width = 2 * self.heads.rank
        self.memory = nn.Linear(max(spec.tokens.values(), default=0), width) if memory else None

    @classmethod
    def build(cls, denoiser: nn.Module, spec: ConditionSpec, config: AdapterConfig | None = None) -> Self:
        """Return a new adapter for a denoiser. Raises ModelError when there is nothing to adapt."""
        config = config or AdapterConfig()
        # readers first: they compare what the base's own attention puts out
        shapes = {name: shape_of(module) for name, module in find_readers(denoiser, spec).items()}
        shapes |= film_shapes(denoiser, config) if DESIGNS[config.design] is Delta else layer_shapes(denoiser, config)
        if spec.output is not None:
            shapes.pop(spec.output, None)
            shapes[spec.output] = shape_of(denoiser.get_submodule(spec.output))  # the last
        made = cls(config, spec, shapes)
        if spec.output is not None and config.design == "film":
            made.along(denoiser.get_submodule(spec.output))
        return made

    @property
    def layered(self) -> list[str]:
        """The targets that `layers` belong to, in order."""
        return list(layered(self.shapes))

    @property
    def deltas(self) -> list[str]:
        """The layers that have a plain delta, which folds into their weights."""
        return [name for name, kind in kinds_of(self.config, self.shapes, self.spec.output).items() if kind is Delta]

    @torch.no_grad()
    def along(self, output: nn.Module) -> None:
        """Let the first inputs that the output layer's update looks at be those that the layer itself looks at."""
        last: Any = self.layers[-1]
        down, weight = last.down, getattr(unwrapped(output), "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.is_meta:
            return
        rows = weight.detach().float().flatten(1)[: len(down)].to(down.device)
        if rows.shape[1] == down.flatten(1).shape[1]:
            length = rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
            down.view(len(down), -1)[: len(rows)] = rows / length

    def modulations(
        self, scale: Tensor, conditions: dict[str, Tensor], dtype: torch.dtype, known: Tensor | None = None
    ) -> Modulations:
        """Return the modulations at guidance scales [B] or, for D dials, [B, D], counted from 1.

        `known` is the conditions' part of the code, where it has been worked out before.
        """
        strength = (scale.reshape(len(scale), -1)[:, : self.spec.anchors] - 1).sum(1, keepdim=True)
        inner = self.heads.inner(strength)
        if self.encoder is None:  # a plain LoRA sees nothing, and no target asks for a part of its code
            code = strength.new_zeros(len(strength), self.heads.in_features)
        else:
            code = self.encoder(scale, conditions, known=known)
        parts = self.heads.parts(code, strength, inner, dtype)
        film = None if self.film is None else self.film(code, inner)
        return Modulations(film=film, parts=parts, strength=inner, tokens=self.memory_of(conditions, strength))

    def memory_of(self, conditions: dict[str, Tensor], like: Tensor) -> Tensor:
        """Return keys and values [B, T, 2 * rank] of the first token sequence, shared by all targets."""
        if self.memory is None:
            return like[:, :0, None].expand(-1, -1, 2 * self.heads.rank)
        return self.memory(conditions[next(iter(self.spec.tokens))].to(self.memory.weight.dtype))

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def film_shapes(denoiser: nn.Module, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Return the places of a denoiser, of which a plain LoRA has none, and the layers that are to get deltas."""
    places = find_places(denoiser, config.target_modules) if config.design == "film" else {}
    found = find_deltas(denoiser, config.target_modules) if config.rank else {}
    if not places and not found:
        return layer_shapes(denoiser, config)  # which says what is wrong with the names
    return places | {name: shape_of(module) for name, module in found.items()}


def layer_shapes(denoiser: nn.Module, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Return the layers that the other designs change."""
    linears = DESIGNS[config.design] is Delta
    found = find_targets(denoiser, linears=linears, target_modules=config.target_modules)
    return {name: shape_of(module) for name, module in found.items()}


def target_shape(denoiser: nn.Module, target: str) -> tuple[int, ...]:
    """Return a target's shape in a denoiser. Raises AttributeError or ModelError where there is none."""
    if is_place(target):
        return place_shape(denoiser, target)
    module = module_of(denoiser, target)
    try:
        return shape_of(module)
    except AttributeError as error:
        raise ModelError(f"{target} is a {type(module).__name__} here") from error
