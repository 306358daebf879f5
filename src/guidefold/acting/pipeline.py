"""One pass at use: the pipeline runs with guidance off, and its guidance scales go to the adapter instead."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.acting.ahead import timesteps_of
from guidefold.acting.arguments import positive_embeds, warn_of_arguments
from guidefold.acting.attachment import acting_on
from guidefold.acting.callbacks import follow
from guidefold.acting.negative import check_negatives, negative_conditions
from guidefold.acting.once import encoded_once
from guidefold.acting.requests import Request
from guidefold.capture.switch import Switch, switch_for
from guidefold.denoiser import chosen_denoiser, denoisers
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting

SERVED = "_guidefold"  # the attribute of a pipeline that holds what it is served by


class Served:
    """The adapters that serve a pipeline; copies of the pipeline are served by the same."""

    def __init__(self, switches: "Mapping[Acting, Switch]") -> None:
        self.switches = dict(switches)

    def __deepcopy__(self, memo: dict) -> "Served":
        return self


def is_pipeline(model: Any) -> bool:
    """Tell a pipeline from a bare denoiser."""
    return not isinstance(model, nn.Module)


def switches_of(pipe: Any) -> "dict[Acting, Switch]":
    """Return the adapters that a pipeline is served by."""
    served = vars(pipe).get(SERVED)
    return served.switches if isinstance(served, Served) else {}


def folding(pipe: Any, adapter: "Acting") -> "dict[Acting, Switch]":
    """Return a pipeline's adapters with this one. Raises ModelError for one too many."""
    others = {other: switch for other, switch in switches_of(pipe).items() if acts(other, pipe)}
    if adapter in others:
        raise ModelError("this adapter is attached already; call detach() first")
    if any(other.spec.denoiser == adapter.spec.denoiser for other in others):
        raise ModelError(f"{type(pipe).__name__} has another adapter attached; detach that one first")
    switch = switch_for(pipe, adapter.spec.offs, anchors=adapter.spec.anchors, guider=adapter.spec.guider)
    return {**others, adapter: switch}


def acts(adapter: "Acting", pipe: Any) -> bool:
    """Tell whether an adapter acts on the denoiser that a pipeline has now: a copy outlives the attachment."""
    return adapter.attached and adapter in acting_on(chosen_denoiser(pipe, adapter.spec.denoiser))


def serving(pipe: Any, adapters: "Iterable[Acting]") -> "list[Acting]":
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


def unserved(pipe: Any, active: "list[Acting]") -> list[str]:
    """Return the denoisers, of the kinds that adapters act on, which have none."""
    served = [adapter.spec.denoiser for adapter in active]
    names = [name for name in served if name is not None]
    if len(names) < len(served):  # the only one that guidance runs
        return []
    parts = {name: type(getattr(part, "_orig_mod", part)) for name, part in denoisers(pipe).items()}
    return [name for name, kind in parts.items() if name not in names and kind in {parts[one] for one in names}]


def warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)


def original_of(pipe: Any) -> type:
    return getattr(type(pipe), "_folded_from", type(pipe))


def fold(pipe: Any, switches: "Mapping[Acting, Switch]") -> None:
    """Let adapters serve a pipeline: it becomes an instance of a subclass that looks like its class."""
    original = original_of(pipe)
    vars(pipe)[SERVED] = Served(switches)
    pipe.__class__ = folded_class(original)


def unfold(pipe: Any, adapter: "Acting") -> None:
    """Take an adapter from a pipeline."""
    rest = {other: switch for other, switch in switches_of(pipe).items() if other is not adapter}
    if rest:
        vars(pipe)[SERVED] = Served(rest)
    elif SERVED in vars(pipe):
        del vars(pipe)[SERVED]
        pipe.__class__ = original_of(pipe)


@functools.lru_cache(maxsize=256)
def folded_class(original: type) -> type:
    """Return the subclass whose calls take one pass; saving a pipeline writes its name, so that is the original's."""
    body = {"__call__": folded_call(original.__call__), "_folded_from": original, "__reduce_ex__": reduced}
    folded = type(
        original.__name__, (original,), body | {"__module__": original.__module__, "__doc__": original.__doc__}
    )
    folded.__qualname__ = original.__qualname__
    return folded


def reduced(pipe: Any, protocol: Any) -> tuple:
    """Return what copy and pickle make a pipeline from, which comes back with its adapters attached."""
    made = object.__reduce_ex__(pipe, protocol)
    return revived, (original_of(pipe),), *made[2:]


def revived(original: type) -> Any:
    folded = folded_class(original)
    return folded.__new__(folded)  # pyright: ignore[reportCallIssue]


def folded_call(inner: Callable) -> Callable:
    """Return a pipeline's call in one pass; what it wraps, the call with gradients, takes one pass too."""

    @functools.wraps(inner)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        switches = switches_of(self)
        active = serving(self, switches)
        if not active:
            return inner(self, *args, **kwargs)
        return served(self, inner, {adapter: switches[adapter] for adapter in active}, args, kwargs)

    if hasattr(inner, "__wrapped__"):
        call.__wrapped__ = folded_call(inner.__wrapped__)  # pyright: ignore[reportFunctionMemberAccess]
    return call


def served(pipe: Any, inner: Callable, active: "Mapping[Acting, Switch]", args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a pipeline with guidance off and adapters in its place."""
    bound = inspect.signature(inner).bind(pipe, *args, **kwargs)
    bound.apply_defaults()
    arguments = bound.arguments
    dials = {
        adapter: dict(zip(adapter.spec.offs, switch.scales(pipe, arguments), strict=True))
        for adapter, switch in active.items()
    }
    check_negatives(arguments, active)
    warn_of_arguments(pipe, arguments, active)
    scales = {adapter: adapter.counted(dials[adapter]) for adapter in active}
    attachments = {adapter: adapter.attachment for adapter in active}
    if any(bool((scale > 1).any()) for scale in scales.values()):
        arguments.update(positive_embeds(arguments))
    with ExitStack() as stack:
        for adapter, switch in active.items():
            adapter.serves(pipe)  # a copy, or one that was pickled
            stack.enter_context(switch.without(pipe))
            arguments.update(switch.off(arguments))
        if any(adapter.spec.negative for adapter in active):
            stack.enter_context(encoded_once(pipe))
        negatives = negatives_of(pipe, arguments, active)
        times = functools.partial(timesteps_of, pipe)
        requests = {adapter: Request.of(scales[adapter], negatives.get(adapter), times=times) for adapter in active}
        follow(arguments, {adapter: (switch, dials[adapter]) for adapter, switch in active.items()})
        for adapter, request in requests.items():
            stack.enter_context(adapter.asked(request))
        answer = inner(*bound.args, **bound.kwargs)
    if any(adapter.attachment is not before for adapter, before in attachments.items()):
        warn("the adapter was detached during this call, whose last steps were not guided; detach it between calls")
    if not any(request.memory.calls for request in requests.values()):  # shared by what callbacks make of it
        warn(
            f"{type(pipe).__name__} did not call its denoiser as a module, so nothing was guided; call it, not .forward"
        )
    return answer


def negatives_of(
    pipe: Any, arguments: dict[str, Any], active: "Iterable[Acting]"
) -> "dict[Acting, dict[str, torch.Tensor]]":
    """Return the negative prompt's conditions for the adapters that want them; warn where there is one for none."""
    wanting = [adapter for adapter in active if adapter.spec.negative]
    found = {adapter: negative_conditions(pipe, original_of(pipe), arguments, adapter.spec) for adapter in wanting}
    for name in () if wanting else ("negative_prompt", "negative_prompt_embeds"):
        value = arguments.get(name)
        if value is not None and len(value):
            warn(f"this adapter was trained without negative prompts; {name} is ignored")
    return found
