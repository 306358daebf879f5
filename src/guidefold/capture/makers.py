"""What makes inputs of a denoiser, such as a ControlNet its residuals: called again, they need not be recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from guidefold.answers import leaves
from guidefold.arguments import arguments_of, unwritten, written
from guidefold.denoiser import denoisers, for_call
from guidefold.errors import ModelError

Inputs = dict[str, Tensor]  # of a network, with a row per image; see `Call.by_image`


@dataclass(frozen=True, kw_only=True)
class Maker:
    """A component of a pipeline, how it is called, and which of its denoiser's inputs its answers are."""

    component: str
    made: dict[str, int]  # the denoiser's tensors by name, and which of the answer's tensors each of them is
    borrowed: tuple[str, ...]  # inputs that are the denoiser's of the same names
    static: dict[str, Any]  # its arguments without tensors, the same in all calls

    def remade(self, network: nn.Module, inputs: Inputs, own: Inputs) -> Inputs:
        """Return the denoiser's inputs that this makes, as the denoiser takes them.

        `inputs` are the others of the denoiser, `own` those of the network that the denoiser has not.
        """
        given = {name: inputs[name] for name in self.borrowed} | own
        answer = leaves(network(**arguments_of(for_call(given), self.static)))
        return {name: answer[place] for name, place in self.made.items()}

    def without_made(self, inputs: Inputs) -> Inputs:
        """Return those of a denoiser's inputs that this does not make."""
        return {name: value for name, value in inputs.items() if name.partition("@")[0] not in self.made}

    def to_dict(self) -> dict[str, Any]:
        """Return what a store's index says of it."""
        static = {name: written(value) for name, value in self.static.items()}
        return {"component": self.component, "made": self.made, "borrowed": list(self.borrowed), "static": static}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """Return what `to_dict` told. Raises KeyError, TypeError or AttributeError for anything else."""
        static = {name: unwritten(value) for name, value in told["static"].items()}
        made = {name: int(place) for name, place in told["made"].items()}
        return cls(component=told["component"], made=made, borrowed=tuple(told["borrowed"]), static=static)


Bound = tuple[tuple[Maker, nn.Module], ...]  # with the networks that are called


def bound(pipe: Any, makers: Sequence[Maker]) -> Bound:
    """Return makers with their networks, of a pipeline or of what holds its parts. Raises ModelError for missing ones.

    A denoiser alone has none.
    """
    parts = {} if isinstance(pipe, nn.Module) else denoisers(pipe)
    for one in makers:
        if one.component not in parts:
            raise ModelError(
                f"the {one.component} is missing, whose answers are made again while training; "
                "give the pipeline that was recorded"
            )
    return tuple((one, parts[one.component]) for one in makers)


@torch.no_grad()
def remade(makers: Bound, inputs: Inputs, own: Mapping[str, Inputs]) -> Inputs:
    """Return what makers make for a denoiser with these inputs; `own` holds the other inputs of each, by component.

    Precision is that of the weights, as where they were recorded, and not autocast's.
    """
    found: Inputs = {}
    for maker, network in makers:
        largest = max(inputs.values(), key=Tensor.numel)
        kind, other = largest.device.type, largest.dtype != next(network.parameters()).dtype
        cast = other and torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=cast):
            found |= maker.remade(network, inputs, own.get(maker.component, {}))
    return found
