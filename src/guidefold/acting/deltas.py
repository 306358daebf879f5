"""Plain deltas in the weights: W + u B A, as `fuse_lora` does it, with what was there before kept to give it back."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from guidefold.acting.folding import is_plain
from guidefold.adapters.targets import unwrapped
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting


class Deltas:
    """The deltas of an adapter on one denoiser; `strength` is the u that the weights hold now, 0 for the base's own.

    The base's weights are kept beside, so that it needs the memory of the adapted layers twice while it is folded.
    """

    def __init__(self, adapter: "Acting", denoiser: nn.Module) -> None:
        layers = dict(zip(adapter.layered, adapter.layers, strict=True))
        self.names = set(adapter.deltas)
        self.layers = [(unwrapped(denoiser.get_submodule(name)), layers[name]) for name in adapter.deltas]
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []  # weights, what they were, what was written
        self.strength = 0.0

    def check(self) -> None:
        """Raise ModelError where there is nothing to fold, or a weight that cannot be written."""
        if not self.layers:
            raise ModelError("this adapter has no deltas to fold: all it changes is written once a step anyway")
        for layer, _ in self.layers:
            weight = layer._parameters.get("weight")
            if weight is None or not is_plain(weight, [weight.device]):
                raise ModelError(
                    f"a {type(layer).__name__} holds its weights packed or elsewhere, so that deltas cannot be folded "
                    "into them; leave fold() out"
                )

    @torch.no_grad()
    def hold(self, strength: float) -> None:
        """Make the weights hold the deltas at a strength, 0 for none: the base's own, bit for bit."""
        if strength == self.strength:
            return
        for weight, before, written in self.kept:
            if torch.equal(weight, written):
                weight.copy_(before)
            else:
                weight.add_(before - written)  # somebody else has changed it meanwhile, such as a fused LoRA
        self.kept, self.strength = [], 0.0
        for layer, delta in self.layers if strength else ():
            weight = layer._parameters["weight"]
            assert weight is not None
            weight = weight.data  # behind autograd's back: it is given back bit for bit
            before, gate = weight.detach().clone(), torch.tensor([strength], device=weight.device)
            weight.add_(delta.folded(gate).to(weight.dtype))  # pyright: ignore[reportCallIssue]
            self.kept.append((weight, before, weight.detach().clone()))
        self.strength = strength
