"""Blocks that run again in a backward pass, each changed there as it was in the forward pass."""

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.denoiser import replaced

if TYPE_CHECKING:
    from guidefold.acting.attachment import Place

FUNCTION = "_gradient_checkpointing_func"  # what diffusers' models call their blocks through


def recalled(denoiser: nn.Module, place: "Place") -> Iterator[Any]:
    """Yield contexts in which the blocks of a denoiser remember what they are changed by."""
    for module in denoiser.modules():
        function = vars(module).get(FUNCTION)
        if function is not None and getattr(module, "gradient_checkpointing", False):
            # one for all calls, or the compiler would make a graph for each
            wrapper = place.wrappers.setdefault(id(function), recalling(function, place))
            yield replaced(module, FUNCTION, wrapper)


def recalling(function: Callable, place: "Place") -> Callable:
    def checkpoint(block: Callable, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(block, *args, **kwargs)  # a graph has its inputs at hand
        kept = place.layering.kept()

        def run(*inputs: Any) -> Any:
            if place.turns.mine and place.turns.runs():
                return block(*inputs)
            place.turns.take(sys._getframe(), place)
            try:
                place.change(kept)
                return block(*inputs)
            finally:
                place.end()

        return function(run, *args, **kwargs)

    checkpoint.function = function  # its number stays its own  # pyright: ignore[reportFunctionMemberAccess]
    return checkpoint
