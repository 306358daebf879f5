"""Try one pipeline class: observe its guidance, attach an adapter, and compare the runs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from guidefold.acting.folding import Folding
from guidefold.adapters.conditions import ConditionSpec
from guidefold.capture.observe import Observation, difference, observe, renewed
from guidefold.capture.run import run
from guidefold.capture.switch import Switch
from guidefold.capture.tape import Tape
from guidefold.config import AdapterConfig
from guidefold.denoiser import denoisers, replaced
from guidefold.errors import GuidefoldError
from guidefold.keeping import Adapter
from support.case import Case, build, package_of

FORMS = 1e-3  # what rounding may make of two forms along a trajectory


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was seen of a pipeline class; `why` is empty where it works."""

    pipeline: str
    why: str = ""
    package: str = ""
    denoisers: str = ""
    off: str = ""
    further: str = ""
    receives: str = ""
    rows_guided: int = 0
    rows_folded: int = 0
    calls_guided: int = 0
    calls_folded: int = 0
    targets: int = 0
    passes: float = 0.0  # a recorded step's
    target_error: float = 0.0
    input_error: float | None = 0.0  # none where no branch has inputs of these shapes
    result_error: float = 0.0
    form_error: float = 0.0  # between the adapter's folded form and its live one
    replay_error: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Failed(Exception):
    """A pipeline ran, but not as promised."""


def check(name: str) -> Row:
    """Return the row of a pipeline class; what raises is its reason not to work."""
    try:
        case = build(name)
        seen = observe(case.pipe, **case.call)
        return fold(name, case, seen)
    except (GuidefoldError, Failed, LookupError) as error:
        return Row(pipeline=name, why=" ".join(str(error).split()))
    except Exception as error:
        return Row(pipeline=name, why=" ".join(f"{type(error).__name__}: {error}".split())[:200])


def fold(name: str, case: Case, seen: Observation) -> Row:
    """Attach an adapter to every guided denoiser, see that it works at half the passes, and detach it."""
    pipe, call, switch = case.pipe, renewed(case.call), seen.switch
    parts, adapters = denoisers(pipe), []
    with switch.without(pipe):
        bare = run(pipe, switch.off(call()))
    for component in seen.denoisers:
        first = next(one.call for one in seen.bare.called if one.denoiser == component)
        spec = ConditionSpec.observe(
            parts[component], first, dials=tuple((dial.name, dial.off) for dial in switch.dials),
            anchors=switch.anchors, guider=switch.guider, denoiser=component,
        )  # fmt: skip
        torch.manual_seed(0)
        adapters.append(Adapter.build(parts[component], spec, AdapterConfig(width=16, squeeze=4)).attach(pipe))
    zero = run(pipe, call())
    require(same(zero, bare), "an adapter that has learnt nothing changes the model")
    for adapter in adapters:
        changing = [layer.up for layer in adapter.layers]
        for parameter in [*changing, *(adapter.film.head.parameters() if adapter.film is not None else [])]:
            torch.nn.init.normal_(parameter, std=0.02)
    folded = run(pipe, call())
    with replaced(Folding, "possible", lambda *_: False):
        live = run(pipe, call())
    require(not same(folded, bare), "the adapter does not reach the output")
    require(all(step.received.isfinite().all() for step in folded.steps), "the adapted output is not finite")
    require(folded.rows == bare.rows, f"the denoiser sees {folded.rows} rows with an adapter, {bare.rows} without")
    form_error = farthest(folded, live)
    require(form_error < FORMS, f"the adapter's two forms differ by {form_error:.1e}")
    for adapter in adapters:
        adapter.detach()
    require(same(run(pipe, call()), seen.guided), "detaching does not give the teacher back")
    return Row(
        pipeline=name, package=package_of(name), denoisers=", ".join(seen.denoisers),
        off=arguments(switch, range(switch.anchors)),
        further=", ".join(dial.name for dial in switch.dials[switch.anchors :]), receives="; ".join(seen.kinds()),
        rows_guided=seen.guided.rows, rows_folded=folded.rows, calls_guided=len(seen.guided.called),
        calls_folded=len(folded.called), targets=sum(len(adapter.shapes) for adapter in adapters),
        target_error=seen.target_error, input_error=seen.input_error if math.isfinite(seen.input_error) else None,
        result_error=seen.result_error, passes=seen.passes, form_error=form_error,
        replay_error=max(one.error for one in seen.replays.values()),
    )  # fmt: skip


def farthest(one: Tape, other: Tape) -> float:
    """Return the largest difference of what two runs' schedulers received, relative to the largest value."""
    pairs = zip(one.steps, other.steps, strict=True)
    return max((difference(a.received, b.received) for a, b in pairs), default=0.0)


def require(holds: bool, why: str) -> None:
    if not holds:
        raise Failed(why)


def arguments(switch: Switch, which: range) -> str:
    prefix = "guider." if switch.guider else ""
    return ", ".join(f"{prefix}{switch.dials[one].name}={switch.dials[one].off:g}" for one in which)


def same(one: Tape, other: Tape) -> bool:
    """Tell whether two runs' schedulers received the same, bit for bit."""
    pairs = zip(one.steps, other.steps, strict=False)
    return len(one.steps) == len(other.steps) and all(torch.equal(a.received, b.received) for a, b in pairs)
