"""Averaged weights of an adapter."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of parameters; young averages forget faster, so that it starts unbiased."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Blend in the parameters after optimizer step `step`, counted from 0."""
        keep = min(self.decay, (1 + step) / (10 + step))
        own = [value.detach() for value in module.parameters()]
        torch._foreach_lerp_(list(self.values.values()), own, 1 - keep)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Use the averaged weights for a while."""
        own = {name: value.detach().clone() for name, value in module.named_parameters()}
        self.copy(self.values, module)
        try:
            yield
        finally:
            self.copy(own, module)

    @staticmethod
    @torch.no_grad()
    def copy(values: dict[str, Tensor], module: nn.Module) -> None:
        for name, value in module.named_parameters():
            value.copy_(values[name])
