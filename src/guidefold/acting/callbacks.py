"""Callbacks that change guidance during a call: schedules, cut-offs.

A pipeline tells its callback everything and takes back what it changes; its own guidance scale is at its off value
while an adapter serves it. So the callback sees the scale that the user knows, and what it sets becomes the scale of
the steps to come.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guidefold.acting.requests import ask_instead, request_of, unasked
from guidefold.capture.switch import Switch

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting

CALLBACK, INPUTS = "callback_on_step_end", "callback_on_step_end_tensor_inputs"
Dials = dict[str, Any]


def follow(arguments: dict[str, Any], active: "Mapping[Acting, tuple[Switch, Dials]]") -> None:
    """Let what a callback sets reach the adapters: replaces it in a call's arguments. `active` have their own dials."""
    callback = arguments.get(CALLBACK)
    if not callable(callback):
        return
    wanted = getattr(callback, "tensor_inputs", None)  # of diffusers' own callbacks
    if wanted is not None and INPUTS in arguments:
        arguments[INPUTS] = wanted
    own = {adapter: (switch, dict(dials)) for adapter, (switch, dials) in active.items()}
    arguments[CALLBACK] = following(callback, own)


def following(callback: Callable, active: "Mapping[Acting, tuple[Switch, Dials]]") -> Callable:
    @functools.wraps(callback, updated=())
    def call(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        known = attributes(pipe, active)
        own = {name: vars(pipe)[name] for name in known}
        guided = {adapter: switch.scales(pipe, {}) for adapter, (switch, _) in active.items() if switch.guider}
        vars(pipe).update(known)
        try:
            with unasked():
                result = callback(pipe, step, timestep, dict(tensors))
            changed = {name: vars(pipe).get(name) for name in known if vars(pipe).get(name) is not known[name]}
        finally:
            vars(pipe).update(own)
        if changed or guided:
            take_up(pipe, changed, active)
        forget_conditions(active)
        return {**result, **{name: kept(tensors.get(name), value) for name, value in result.items()}}

    return call


def attributes(pipe: Any, active: "Mapping[Acting, tuple[Switch, Dials]]") -> dict[str, Any]:
    """Return the attributes in which a pipeline keeps its guidance scales during a call, with the user's values."""
    found = {}
    for switch, dials in active.values():
        for dial, value in zip(switch.dials, dials.values(), strict=False):
            if f"_{dial.name}" in vars(pipe):
                found[f"_{dial.name}"] = value
    return found


def take_up(pipe: Any, changed: dict[str, Any], active: "Mapping[Acting, tuple[Switch, Dials]]") -> None:
    """Ask adapters for the scales that a callback has set, from the next step on."""
    for adapter, (switch, dials) in active.items():
        request = request_of(adapter)
        if switch.guider:
            dials.update(zip(dials, switch.scales(pipe, {}), strict=True))
        for dial, name in zip(switch.dials, dials, strict=False):
            dials[name] = changed.get(f"_{dial.name}", dials[name])
        if request is not None:
            ask_instead(adapter, request.at(adapter.counted(dials)))


def forget_conditions(active: "Iterable[Acting]") -> None:
    """Let conditions be looked at anew where a change in place leaves no trace: tensors made in inference mode."""
    for adapter in active if torch.is_inference_mode_enabled() else ():
        request = request_of(adapter)
        if request is not None:
            request.memory.key = None


def kept(before: Any, after: Any) -> Any:
    """Return a tensor as this call has it, of one that a callback returns as it is with guidance.

    There it holds the negative prompt's rows first: a callback that turns guidance off keeps the last ones, and one
    that replaces all gives twice as many.
    """
    if not (isinstance(before, Tensor) and isinstance(after, Tensor)) or before.dim() == 0 or after.dim() == 0:
        return after
    if len(after) < len(before):
        return before
    return after[len(before) :] if len(after) == 2 * len(before) else after
