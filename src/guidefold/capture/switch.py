"""What turns a pipeline's guidance off: found by trying, and measuring how much work the denoiser then does."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from guidefold.capture.run import parameters_of, run
from guidefold.capture.tape import Tape
from guidefold.errors import ModelError
from guidefold.memory import is_of_memory

Call = Callable[[], dict[str, Any]]
SCALES = re.compile(r"(scale|guidance|cfg)(_\d+)?$")
OFF_VALUES = (1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Dial:
    """A guidance scale of a pipeline: the argument's name and the value at which it does nothing."""

    name: str
    off: float


@dataclass(frozen=True, kw_only=True)
class Switch:
    """How a pipeline's guidance is turned off: by arguments of its call, or by its `guider` component.

    The first `anchors` dials turn guidance off together; further ones, such as a rescale, only shape it.
    """

    dials: tuple[Dial, ...]
    anchors: int = 1
    guider: bool = False

    def off(self, call: dict[str, Any]) -> dict[str, Any]:
        """Return a call with guidance off."""
        return call if self.guider else {**call, **{dial.name: dial.off for dial in self.dials[: self.anchors]}}

    def scales(self, pipe: Any, arguments: dict[str, Any]) -> list[Any]:
        """Return each dial's value in a call; one that is None follows the first."""
        if self.guider:
            return [getattr(pipe.guider, dial.name) for dial in self.dials]
        values = [arguments.get(dial.name) for dial in self.dials]
        return [values[0] if value is None else value for value in values]

    @contextmanager
    def without(self, pipe: Any) -> Iterator[None]:
        """Turn a guider off for a while."""
        before = pipe.guider._enabled if self.guider else None
        if self.guider:
            pipe.guider.disable()
        try:
            yield
        finally:
            if before:
                pipe.guider.enable()


def switch_for(pipe: Any, dials: dict[str, float], *, anchors: int, guider: bool) -> Switch:
    """Return the switch an adapter was made with, or that of a pipeline with one guidance scale under another name.

    Raises ModelError for a pipeline that has neither.
    """
    parameters = parameters_of(pipe)
    wanted = tuple(Dial(name=name, off=off) for name, off in dials.items())
    if has_guider(pipe) and (guider or not dials.keys() <= parameters.keys()):
        return Switch(dials=wanted, anchors=anchors, guider=True)
    if dials.keys() <= parameters.keys():
        return Switch(dials=wanted, anchors=anchors)
    names = [name for name in parameters if name.endswith(("guidance_scale", "cfg_scale"))]
    if len(names) != len(dials):
        found = f"the guidance arguments {', '.join(names)}" if names else "no guidance argument"
        raise ModelError(f"{type(pipe).__name__}.__call__ has {found}, this adapter has {', '.join(dials)}")
    renamed = tuple(Dial(name=name, off=off) for name, off in zip(names, dials.values(), strict=True))
    return Switch(dials=renamed, anchors=anchors)


def has_guider(pipe: Any) -> bool:
    """Tell whether a pipeline leaves guidance to a component that can be turned off."""
    return hasattr(getattr(pipe, "guider", None), "disable")


def guider_dials(pipe: Any) -> list[str]:
    """Return the guidance scales of a pipeline's guider."""
    return [name for name in pipe.guider.config if SCALES.search(name)]


def first_dial(pipe: Any) -> str:
    """Return the argument that is the guidance scale before anything is known. Raises ModelError if there is none."""
    names = [name for name in parameters_of(pipe) if name.endswith(("guidance_scale", "cfg_scale"))]
    if not names:
        raise ModelError(f"{type(pipe).__name__}.__call__ has no guidance argument; there is no guidance to fold")
    # where there is one, guidance_scale is an input of a guidance-distilled denoiser
    return "true_cfg_scale" if "true_cfg_scale" in names else names[0]


def candidates(pipe: Any, call: Call) -> dict[str, float]:
    """Return the arguments that look like a guidance scale, with the values they have in a call."""
    found = {}
    for name, parameter in parameters_of(pipe).items():
        value = call().get(name, parameter.default)
        if SCALES.search(name) and isinstance(value, (int, float)) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def work(pipe: Any, call: Call, changed: dict[str, float]) -> float:
    """Return how much the denoisers do in a run; infinite where the pipeline refuses the call."""
    try:
        return run(pipe, {**call(), **changed}).rows
    except Exception as error:
        if is_of_memory(error):
            raise
        return float("inf")


def find_switch(pipe: Any, call: Call, guided: Tape) -> Switch:
    """Find what turns guidance off. Raises ModelError where nothing makes the denoiser's work less."""
    if has_guider(pipe):
        return guider_switch(pipe, call, guided)
    found = candidates(pipe, call)
    best: dict[str, float] = {}
    fewest = len({step.call for step in guided.steps})
    least: float = guided.rows
    for value in OFF_VALUES:
        rest = dict.fromkeys((name for name in found if name not in best), value)
        together = {**best, **rest}
        if (less := work(pipe, call, together)) == float("inf"):
            together = {**best, **{name: value for name in rest if accepts(pipe, call, name, value)}}
            less = work(pipe, call, together)
        if less < least:
            best, least = together, less
    for name in found:
        # a picture's and its sound's scales are turned off together: `stg_scale` and `audio_stg_scale`
        group = [other for other in found if other.endswith(name)]
        for value in OFF_VALUES:
            tried = {**best, **dict.fromkeys(group, value)}
            if least > fewest and (less := work(pipe, call, tried)) < least:
                best, least = tried, less
    if not least < guided.rows:
        raise ModelError(nothing_to_fold(pipe, found, call()))
    anchors = tuple(needed(pipe, call, best, least))
    switch = Switch(dials=anchors, anchors=len(anchors))
    return replace(switch, dials=(*anchors, *further(pipe, call, guided, found, switch)))


def further(pipe: Any, call: Call, guided: Tape, found: dict[str, float], switch: Switch) -> Iterator[Dial]:
    """Find the arguments that change what guidance decides and nothing else: an image's scale, a rescale."""
    rest = [name for name in found if name not in {dial.name for dial in switch.dials}]
    bare = run(pipe, switch.off(call())) if rest else None
    for name in rest:
        more = {name: found[name] * 1.25 + 0.25}
        try:
            changed, unchanged = run(pipe, {**call(), **more}), run(pipe, switch.off({**call(), **more}))
        except Exception:  # a value that this pipeline refuses says nothing of the argument
            continue
        if not same(changed, guided) and bare is not None and same(unchanged, bare):
            yield Dial(name=name, off=0.0)


def same(one: Tape, other: Tape) -> bool:
    """Tell whether two runs' schedulers received the same."""
    pairs = zip(one.steps, other.steps, strict=False)
    return len(one.steps) == len(other.steps) and all(torch.equal(a.received, b.received) for a, b in pairs)


def accepts(pipe: Any, call: Call, name: str, value: float) -> bool:
    """Tell whether a pipeline runs with one argument at another value."""
    return work(pipe, call, {name: value}) < float("inf")


def needed(pipe: Any, call: Call, best: dict[str, float], least: float) -> Iterator[Dial]:
    """Leave out the arguments without which the work is no more: a ControlNet's strength, an embedded guidance."""
    kept = dict(best)
    for name in reversed(best):
        if len(kept) > 1:
            others = {other: value for other, value in kept.items() if other != name}
            if work(pipe, call, others) <= least:
                kept = others
    for name in parameters_of(pipe):
        if name in kept:
            yield Dial(name=name, off=kept[name])


def guider_switch(pipe: Any, call: Call, guided: Tape) -> Switch:
    """Return the switch of a pipeline that leaves guidance to a component."""
    dials = [Dial(name=name, off=0.0 if number else 1.0) for number, name in enumerate(guider_dials(pipe))]
    switch = Switch(dials=tuple(dials), guider=True)
    with switch.without(pipe):
        least = work(pipe, call, {})
    if not least < guided.rows:
        raise ModelError(f"the guider of {type(pipe).__name__} runs its denoiser no more than once; nothing to fold")
    return switch


def nothing_to_fold(pipe: Any, found: dict[str, float], call: dict[str, Any]) -> str:
    """Say why no argument turned guidance off."""
    name = type(pipe).__name__
    if not found:
        return f"{name} has no guidance argument; there is no guidance to fold"
    wants = "negative_prompt" in parameters_of(pipe) and not call.get("negative_prompt")
    hint = "; some pipelines want a negative_prompt for guidance to be on" if wants else ""
    tried = ", ".join(f"{key}={value:g}" for key, value in found.items())
    return (
        f"{name} runs its denoiser as often without guidance as with {tried}: guidance is off already, is an input of "
        f"the denoiser (a guidance-distilled model), or cannot be turned off{hint}"
    )
