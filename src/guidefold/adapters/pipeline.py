"""One pass at use: the pipeline runs with guidance off, and its guidance scale goes to the adapter instead."""

import functools
import inspect
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.denoiser import OFF, guidance_argument
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.adapters.adapter import Adapter


def is_pipeline(model: Any) -> bool:
    """Tell a pipeline from a bare denoiser."""
    return not isinstance(model, nn.Module)


def at_least_off(scale: Any) -> Any:
    """Raise scales below 1 to 1: pipelines take both for no guidance."""
    if isinstance(scale, (int, float)):
        return max(scale, OFF)
    if isinstance(scale, (list, tuple)):
        return [at_least_off(one) for one in scale]
    return scale.clamp(min=OFF) if isinstance(scale, torch.Tensor) else scale


def fold(pipe: Any, adapter: "Adapter") -> None:
    """Give this one pipeline a class of its own, whose `__call__` hands the guidance scale to the adapter."""
    original, name = type(pipe), guidance_argument(pipe)
    if hasattr(original, "_folded_from"):
        raise ModelError(f"{original.__name__} has another adapter attached; detach that one first")
    signature = inspect.signature(original.__call__)

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # a copy of the pipeline outlives the attachment
        if not (adapter.enabled and adapter.attached):
            return original.__call__(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        for negative in ("negative_prompt", "negative_prompt_embeds"):
            value = bound.arguments.get(negative)
            if value is not None and len(value):
                warnings.warn(f"this adapter was trained without negative prompts; {negative} is ignored", stacklevel=2)
        with adapter.at(at_least_off(bound.arguments[name])):
            bound.arguments[name] = OFF
            return original.__call__(*bound.args, **bound.kwargs)

    body = {"__call__": call, "_folded_from": original, "__module__": original.__module__, "__doc__": original.__doc__}
    folded = type(original.__name__, (original,), body)
    folded.__qualname__ = original.__qualname__  # saving a pipeline writes the name of its class
    pipe.__class__ = folded


def unfold(pipe: Any) -> None:
    """Undo `fold`."""
    pipe.__class__ = type(pipe)._folded_from
