"""What every target's layer is given of the conditions and the guidance scale."""

import torch
from torch import Tensor, nn

from guidefold.adapters.layers import DESIGNS, Delta, Layer, LowRank, layer_for
from guidefold.adapters.places import is_place
from guidefold.adapters.readers import reads
from guidefold.config import AdapterConfig

Shapes = dict[str, tuple[int, ...]]
RANK = 32  # of readers and of the output layer, where the design's own targets have none


def layered(shapes: Shapes) -> Shapes:
    """Return the targets that are changed by a layer of their own: all but the places of `film`."""
    return {name: shape for name, shape in shapes.items() if not is_place(name)}


def ranks_of(config: AdapterConfig, shapes: Shapes, output: str | None) -> dict[str, int]:
    """Return the targets' inner widths; whatever the rank, the prediction can change in every direction."""
    rank = config.rank or RANK
    return {name: max(rank, min(shape[:2])) if name == output else rank for name, shape in layered(shapes).items()}


def kinds_of(config: AdapterConfig, shapes: Shapes, output: str | None) -> dict[str, type[Layer]]:
    """Return the targets' layers: a low-rank update of readers and of the output layer, of the others the design.

    A plain LoRA has one kind: nothing in it is gated.
    """
    gated = {name for name in layered(shapes) if config.design != "lora" and (reads(name) or name == output)}
    return {name: LowRank if name in gated else DESIGNS[config.design] for name in layered(shapes)}


def make_layers(config: AdapterConfig, shapes: Shapes, output: str | None) -> nn.ModuleList:
    """Return the layers of all targets."""
    ranks, kinds = ranks_of(config, shapes, output), kinds_of(config, shapes, output)
    return nn.ModuleList(layer_for(kinds[name], shape, ranks[name]) for name, shape in layered(shapes).items())


class Heads(nn.Linear):
    """The modulations of all targets in one product, so that a target pays for its own tokens only.

    The targets are readers, if any, then those of the design, then `output`, the layer that makes the prediction, if it
    is known.
    """

    def __init__(self, config: AdapterConfig, shapes: Shapes, output: str | None) -> None:
        ranks, kinds = ranks_of(config, shapes, output), kinds_of(config, shapes, output)
        counts = {name: kind.modulation(ranks[name]) for name, kind in kinds.items()}
        super().__init__(config.width, sum(counts.values()))
        self.design, self.rank = DESIGNS[config.design], config.rank or RANK
        self.counts, self.last = counts, counts.get(output or "", 0)
        self.readers = sum(map(reads, counts))
        self.others = len(counts) - self.readers - bool(self.last)  # targets of the design
        if config.design != "offset":
            nn.init.zeros_(self.weight)
            nn.init.zeros_(self.bias)

    def reset_parameters(self) -> None:
        """Initialise as a linear layer, which may have nothing to put out."""
        if self.out_features:
            super().reset_parameters()

    def inner(self, strength: Tensor) -> Tensor:
        """Return the strength [B, 1] of the targets before the output layer; see `layers`."""
        return strength.tanh() if self.last or self.design is Delta else strength

    def parts(self, code: Tensor, strength: Tensor, inner: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """Return what each target's layer is given, of the conditions' code [B, W] and the strengths [B, 1]."""
        reading = self.readers * self.rank
        sizes = [reading, self.out_features - reading - self.last, self.last]
        readers, middle, outer = self(code).split(sizes, dim=1)
        anchor, rows = inner[:, None], len(code)
        parts = [
            LowRank.prepare(readers.view(rows, self.readers, self.rank), anchor),
            self.design.prepare(middle.view(rows, self.others, self.design.modulation(self.rank)), anchor),
            *([LowRank.prepare(outer[:, None], strength[:, None])] if self.last else []),
        ]
        return [one for part in parts for one in part.to(dtype).unbind(1)]

    def rows(self) -> dict[str, slice]:
        """Return each target's rows of the weights."""
        found, start = {}, 0
        for name, count in self.counts.items():
            found[name] = slice(start, start + count)
            start += count
        return found
