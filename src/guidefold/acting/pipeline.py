"""One pass at use: the pipeline runs with guidance off, and its guidance scales go to the adapter instead."""

import functools
import inspect
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.acting.hooks import acting_on
from guidefold.acting.negative import negative_conditions
from guidefold.capture.switch import Switch, switch_for
from guidefold.denoiser import chosen_denoiser, denoisers
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.keeping.adapter import Adapter

RESCALE = "guidance_rescale"


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


def folding(pipe: Any, adapter: "Adapter") -> "tuple[type, dict[Adapter, Switch]]":
    """Return the original class of a pipeline, and its adapters with this one. Raises ModelError for one too many."""
    others = {other: switch for other, switch in getattr(type(pipe), "_folded_by", {}).items() if acts(other, pipe)}
    if adapter in others:
        raise ModelError("this adapter is attached already; call detach() first")
    if any(other.spec.denoiser == adapter.spec.denoiser for other in others):
        raise ModelError(f"{type(pipe).__name__} has another adapter attached; detach that one first")
    switch = switch_for(pipe, adapter.spec.offs, anchors=adapter.spec.anchors, guider=adapter.spec.guider)
    return getattr(type(pipe), "_folded_from", type(pipe)), {**others, adapter: switch}


def acts(adapter: "Adapter", pipe: Any) -> bool:
    """Tell whether an adapter acts on the denoiser that a pipeline has now: a copy outlives the attachment."""
    return adapter.attached and adapter in acting_on(chosen_denoiser(pipe, adapter.spec.denoiser))


def serving(pipe: Any, adapters: "Iterable[Adapter]") -> "list[Adapter]":
    """Return the adapters that take guidance's place in a call of the pipeline: one for every denoiser, or none.

    Where guidance runs several denoisers it is on or off for all. Warns where an adapter has lost its denoiser.
    """
    attached = [adapter for adapter in adapters if adapter.attached]
    enabled = [adapter for adapter in attached if adapter.enabled]
    active = [adapter for adapter in enabled if acts(adapter, pipe)]
    if len(active) < len(enabled):
        warn("the adapter is attached to another denoiser than the pipeline's, which takes all passes; attach it again")
    elif len(enabled) == len(attached) and (lacking := unserved(pipe, active)):
        warn(f"{lacking[0]} has no adapter, so guidance takes all passes; attach one to every denoiser")
        return []
    return active if len(active) == len(attached) else []


def unserved(pipe: Any, active: "list[Adapter]") -> list[str]:
    """Return the denoisers, of the kinds that adapters act on, which have none."""
    served = [adapter.spec.denoiser for adapter in active]
    names = [name for name in served if name is not None]
    if len(names) < len(served):  # the only one that guidance runs
        return []
    parts = {name: type(getattr(part, "_orig_mod", part)) for name, part in denoisers(pipe).items()}
    return [name for name, kind in parts.items() if name not in names and kind in {parts[one] for one in names}]


def warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def become(pipe: Any, original: type, switches: "dict[Adapter, Switch]") -> None:
    """Make a pipeline an instance of a subclass of its original class that serves these adapters."""
    signature = inspect.signature(original.__call__)

    @functools.wraps(original.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        active = serving(self, switches)
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
            warn_of_rescale(arguments, active)
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
            warn(f"this adapter was trained without negative prompts; {name} is ignored")
    return found


def warn_of_rescale(arguments: dict[str, Any], active: "list[Adapter]") -> None:
    """Warn where guidance would be rescaled: pipelines that run without guidance ignore it."""
    dials = {name for adapter in active for name in adapter.spec.offs}
    if arguments.get(RESCALE) and RESCALE not in dials:
        warn(f"{RESCALE} {arguments[RESCALE]:g} is ignored: the adapter knows what it was trained with, or a dial")


def unfold(pipe: Any, adapter: "Adapter") -> None:
    """Take an adapter from a pipeline."""
    folded = type(pipe)
    rest = {other: switch for other, switch in folded._folded_by.items() if other is not adapter}
    if rest:
        become(pipe, folded._folded_from, rest)
    else:
        pipe.__class__ = folded._folded_from
