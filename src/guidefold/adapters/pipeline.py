"""One pass at use: the pipeline runs with guidance off, and its guidance scales go to the adapter instead."""

import functools
import inspect
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.capture.negative import negative_conditions
from guidefold.capture.switch import Switch, switch_for
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.adapters.adapter import Adapter


def is_pipeline(model: Any) -> bool:
    """Tell a pipeline from a bare denoiser."""
    return not isinstance(model, nn.Module)


def at_least(off: float, scale: Any) -> Any:
    """Raise scales below the one that does nothing to it: pipelines take both for no guidance."""
    if isinstance(scale, (int, float)):
        return max(scale, off)
    if isinstance(scale, (list, tuple)):
        return [at_least(off, one) for one in scale]
    return scale.clamp(min=off) if isinstance(scale, torch.Tensor) else scale


def fold(pipe: Any, adapter: "Adapter") -> None:
    """Give this one pipeline a class of its own, whose `__call__` hands the guidance scales to its adapters."""
    others: tuple[Adapter, ...] = getattr(type(pipe), "_folded_by", ())
    if any(other.spec.denoiser == adapter.spec.denoiser for other in others):
        raise ModelError(f"{type(pipe).__name__} has another adapter attached; detach that one first")
    switch = switch_for(pipe, adapter.spec.offs, anchors=adapter.spec.anchors, guider=adapter.spec.guider)
    become(pipe, getattr(type(pipe), "_folded_from", type(pipe)), (*others, adapter), switch)


def become(pipe: Any, original: type, adapters: "tuple[Adapter, ...]", switch: Switch) -> None:
    """Make a pipeline an instance of a subclass of its original class that serves these adapters."""
    signature = inspect.signature(original.__call__)

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # a copy of the pipeline outlives the attachment
        active = [adapter for adapter in adapters if adapter.enabled and adapter.attached]
        if not active:
            return original.__call__(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        scales = switch.scales(self, arguments)
        with ExitStack() as stack:
            stack.enter_context(switch.without(self))
            arguments.update(switch.off(arguments))
            negative = negatives_of(self, original, arguments, active)
            for adapter in active:
                dials = adapter.spec.offs
                wanted = {name: at_least(off, value) for (name, off), value in zip(dials.items(), scales, strict=True)}
                stack.enter_context(adapter.at(wanted, negative=negative))
            return original.__call__(*bound.args, **bound.kwargs)

    body = {"__call__": call, "_folded_from": original, "_folded_by": adapters, "_switch": switch}
    body |= {"__module__": original.__module__, "__doc__": original.__doc__}
    folded = type(original.__name__, (original,), body)
    folded.__qualname__ = original.__qualname__  # saving a pipeline writes the name of its class
    pipe.__class__ = folded


def negatives_of(pipe: Any, original: type, arguments: dict[str, Any], active: "list[Adapter]") -> Any:
    """Return the negative prompt's conditions if an adapter wants them; warn where none does and there is one."""
    if any(adapter.spec.negative for adapter in active):
        names = {name for adapter in active for name in (*adapter.spec.tokens, *adapter.spec.vectors)}
        return negative_conditions(pipe, original, arguments, names)
    for name in ("negative_prompt", "negative_prompt_embeds"):
        value = arguments.get(name)
        if value is not None and len(value):
            warnings.warn(f"this adapter was trained without negative prompts; {name} is ignored", stacklevel=4)
    return None


def unfold(pipe: Any, adapter: "Adapter") -> None:
    """Undo `fold`."""
    folded = type(pipe)
    rest = tuple(other for other in folded._folded_by if other is not adapter)
    if rest:
        become(pipe, folded._folded_from, rest, folded._switch)
    else:
        pipe.__class__ = folded._folded_from
