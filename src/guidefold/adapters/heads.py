"""What every target's layer is given of the conditions and the guidance scale."""

import torch
from torch import Tensor, nn

from guidefold.adapters.layers import DESIGNS, Layer, LowRank, layer_for
from guidefold.config import AdapterConfig

Shapes = dict[str, tuple[int, ...]]


def ranks_of(config: AdapterConfig, shapes: Shapes, output: str | None) -> dict[str, int]:
    """Return the targets' inner widths; whatever the rank, the prediction can change in every direction."""
    return {name: max(config.rank, min(shape[:2])) if name == output else config.rank for name, shape in shapes.items()}


def make_layers(config: AdapterConfig, shapes: Shapes, output: str | None) -> nn.ModuleList:
    """Return the layers of all targets: a low-rank update of the output layer, of the others the design."""
    ranks, design = ranks_of(config, shapes, output), DESIGNS[config.design]
    kinds: dict[str, type[Layer]] = {name: LowRank if name == output else design for name in shapes}
    return nn.ModuleList(layer_for(kinds[name], shape, ranks[name]) for name, shape in shapes.items())


class Heads(nn.Linear):
    """The modulations of all targets in one product, so that a target pays for its own tokens only.

    `output` names the layer that makes the prediction, the last of the targets, if it is known.
    """

    def __init__(self, config: AdapterConfig, shapes: Shapes, output: str | None) -> None:
        design, ranks = DESIGNS[config.design], ranks_of(config, shapes, output)
        counts = {name: (LowRank if name == output else design).modulation(rank) for name, rank in ranks.items()}
        super().__init__(config.width, sum(counts.values()))
        self.design, self.each = design, design.modulation(config.rank)
        self.counts, self.last = counts, counts.get(output or "", 0)
        if config.design != "offset":
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    def inner(self, strength: Tensor) -> Tensor:
        """Return the strength [B, 1] of the targets before the output layer; see `layers`."""
        return strength.tanh() if self.last else strength

    def parts(self, code: Tensor, strength: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Return what each target's layer is given, of the conditions' code [B, W] and the strength [B, 1]."""
        inner, outer = self(code).split([self.out_features - self.last, self.last], dim=1)
        alike = inner.unflatten(1, (len(self.counts) - bool(self.last), self.each))
        parts = self.design.prepare(alike, self.inner(strength)[:, None]).to(dtype).unbind(1)
        return [*parts, LowRank.prepare(outer, strength).to(dtype)] if self.last else [*parts]

    def rows(self) -> dict[str, slice]:
        """Return each target's rows of the weights."""
        found, start = {}, 0
        for name, count in self.counts.items():
            found[name] = slice(start, start + count)
            start += count
        return found
