"""One pass at use: the pipeline runs with guidance off, and its guidance scales go to the adapter instead."""

import functools
import inspect
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.adapters.negative import negative_conditions
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
    others: dict[Adapter, Switch] = getattr(type(pipe), "_folded_by", {})
    if any(other.spec.denoiser == adapter.spec.denoiser for other in others):
        raise ModelError(f"{type(pipe).__name__} has another adapter attached; detach that one first")
    switch = switch_for(pipe, adapter.spec.offs, anchors=adapter.spec.anchors, guider=adapter.spec.guider)
    become(pipe, getattr(type(pipe), "_folded_from", type(pipe)), {**others, adapter: switch})


def become(pipe: Any, original: type, switches: "dict[Adapter, Switch]") -> None:
    """Make a pipeline an instance of a subclass of its original class that serves these adapters."""
    signature = inspect.signature(original.__call__)

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        # a copy of the pipeline outlives the attachment
        active = [adapter for adapter in switches if adapter.enabled and adapter.attached]
        if not active:
            return original.__call__(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        scales = {adapter: switches[adapter].scales(self, arguments) for adapter in active}
        with ExitStack() as stack:
            for adapter in active:
                stack.enter_context(switches[adapter].without(self))
                arguments.update(switches[adapter].off(arguments))
            negatives = negatives_of(self, original, arguments, active)
            for adapter in active:
                dials = zip(adapter.spec.offs.items(), scales[adapter], strict=True)
                wanted = {name: at_least(off, value) for (name, off), value in dials}
                stack.enter_context(adapter.at(wanted, negative=negatives.get(adapter)))
            return original.__call__(*bound.args, **bound.kwargs)

    body = {"__call__": call, "_folded_from": original, "_folded_by": switches}
    body |= {"__module__": original.__module__, "__doc__": original.__doc__}
    folded = type(original.__name__, (original,), body)
    folded.__qualname__ = original.__qualname__  # saving a pipeline writes the name of its class
    pipe.__class__ = folded


def negatives_of(
    pipe: Any, original: type, arguments: dict[str, Any], active: "list[Adapter]"
) -> "dict[Adapter, dict[str, torch.Tensor]]":
    """Return the negative prompt's conditions for the adapters that want them; warn where there is one for none."""
    wanting = [adapter for adapter in active if adapter.spec.negative]
    with ExitStack() as stack:
        for adapter in active:
            stack.enter_context(adapter.disabled())
        found = {adapter: negative_conditions(pipe, original, arguments, adapter.spec) for adapter in wanting}
    for name in () if wanting else ("negative_prompt", "negative_prompt_embeds"):
        value = arguments.get(name)
        if value is not None and len(value):
            warnings.warn(f"this adapter was trained without negative prompts; {name} is ignored", stacklevel=4)
    return found


def unfold(pipe: Any, adapter: "Adapter") -> None:
    """Undo `fold`."""
    folded = type(pipe)
    rest = {other: switch for other, switch in folded._folded_by.items() if other is not adapter}
    if rest:
        become(pipe, folded._folded_from, rest)
    else:
        pipe.__class__ = folded._folded_from
