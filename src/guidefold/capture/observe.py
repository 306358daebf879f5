"""Observe a pipeline: its guidance switch, the student's inputs and targets, each verified by running it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guidefold.answers import leaves, packed
from guidefold.capture.known import KnownAnswers, parts_of
from guidefold.capture.making import Making, makings
from guidefold.capture.mapping import OutputMap
from guidefold.capture.replay import Replay, difference, images_of, layout_of, replay
from guidefold.capture.run import failures_told, run
from guidefold.capture.switch import Switch
from guidefold.capture.tape import Tape
from guidefold.capture.watch import Target, Watch
from guidefold.denoiser import denoisers
from guidefold.errors import ModelError

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of a pipeline's guidance, and how exactly it holds: errors are relative to the largest value."""

    switch: Switch
    guided: Tape
    bare: Tape
    maps: tuple[OutputMap, ...]
    targets: dict[int, Target]  # by number of the call of the run without guidance
    target_error: float
    input_error: float
    result_error: float
    dtype: torch.dtype  # the coarsest on the way from the denoiser to its scheduler
    replays: dict[str, Replay]  # by denoiser
    makings: dict[str, tuple[Making, ...]]  # what makes inputs of each denoiser again
    knows_bare: bool  # the guided run's answers are those without guidance too, as far as they are asked the same

    @property
    def passes(self) -> float:
        """The passes of a step that tell an image's state: with guidance, and without it unless they are known."""
        return (self.guided.rows + (not self.knows_bare) * self.bare.rows) / self.bare.rows

    @property
    def denoisers(self) -> tuple[str, ...]:
        """The components that guidance runs more than once, in the order of their first call."""
        return tuple(dict.fromkeys(target.called.denoiser for target in self.targets.values()))

    def kinds(self) -> tuple[str, ...]:
        """Say what schedulers receive of the denoisers' outputs."""
        return tuple(dict.fromkeys(one.kind() for one in self.maps))


def observe(pipe: Any, **call: Any) -> Observation:
    """Watch a pipeline with and without guidance, for a short call with guidance on, and verify what will be recorded.

    Raises ModelError where guidance is off, cannot be turned off, or what reaches the scheduler cannot be traced back
    to the denoiser to the precision of its dtype; where a call made again from its record is answered otherwise; and
    where the pipeline itself fails.
    """
    with failures_told(pipe):
        watch = Watch(pipe, renewed(call))
        maps = watch.maps()
    target_error = max(
        difference(one.forward(packed(watch.bare.answering(step).answer)), step.received.reshape(-1))
        for one, step in zip(maps, watch.bare.steps, strict=True)
    )
    targets = watch.targets(maps)
    if watch.mixes(targets):
        raise ModelError(
            f"{watch.name} calls its denoiser several times a step, and steps by more than the last answer; an adapter "
            "would change them all"
        )
    student = watch.student(targets)
    result_error = result_difference(student.result, watch.guided.result)
    dtype = coarsest(watch)
    tolerance = TOLERANCE.get(dtype, 1e-3)
    if target_error > tolerance:
        raise ModelError(
            f"{watch.name} changes the denoiser's output on the way to its scheduler in a way that is not affine "
            f"(relative error {target_error:.1e})"
        )
    if result_error > tolerance:
        raise ModelError(
            f"{watch.name} without guidance does not give the guided result even with a perfect student "
            f"(relative error {result_error:.1e})"
        )
    found = replays(watch, targets, tolerance)
    return Observation(
        switch=watch.switch, guided=watch.guided, bare=watch.bare, maps=tuple(maps), targets=targets,
        target_error=target_error, input_error=input_error(watch), result_error=result_error,
        dtype=dtype, knows_bare=knows_bare(watch, tolerance), replays=found,
        makings={
            name: makings(watch, visited(targets, name), one, tolerance, found.keys()) for name, one in found.items()
        },
    )  # fmt: skip


def replays(watch: Watch, targets: dict[int, Target], tolerance: float) -> dict[str, Replay]:
    """Make the student's recorded calls again, by denoiser. Raises ModelError where that gives other answers."""
    found, parts = {}, denoisers(watch.pipe)
    for name in dict.fromkeys(target.called.denoiser for target in targets.values()):
        called = [target.called for target in visited(targets, name)]
        images = images_of(watch.call(), called[0].call.rows)
        layout = layout_of(watch.pipe, watch.call(), watch.switch, called, images)
        try:
            found[name] = replay(parts[name], called, layout, tolerance)
        except ModelError:
            # some take what is for all images, such as a T2I adapter's residuals, only with a row for each
            other = layout.with_rows(called[0].call)
            if other == layout:
                raise
            found[name] = replay(parts[name], called, other, tolerance)
    return found


def visited(targets: dict[int, Target], name: str) -> list[Target]:
    """Return the targets of one denoiser, in their order."""
    return [targets[number] for number in sorted(targets) if targets[number].called.denoiser == name]


def enough_steps(pipe: Any, call: Callable[[int], dict[str, Any]], most: int) -> int:
    """Return the first of 2, 4, 8, ... steps, at most `most`, with which a run of `call(steps)` steps twice.

    Editing a picture takes a part of its steps only, and pipelines fail where none is left.
    """
    steps = min(2, most)
    while steps < most and steps_taken(pipe, call(steps)) < 2:
        steps = min(2 * steps, most)
    return steps


def steps_taken(pipe: Any, call: dict[str, Any]) -> int:
    """Return how often a run steps, and 0 where it fails; `observe` tells why if it does with all steps too."""
    try:
        return len(run(pipe, call).steps)
    except Exception:
        return 0


def coarsest(watch: Watch) -> torch.dtype:
    """Return the coarsest dtype of denoisers' answers and what schedulers receive: many pipelines upcast in between."""
    answers = [leaf for step in watch.bare.steps for leaf in leaves(watch.bare.answering(step).answer)]
    found = {value.dtype for value in [*answers, *(step.received for step in watch.guided.steps)]}
    return max((dtype for dtype in found if dtype.is_floating_point), key=lambda dtype: torch.finfo(dtype).eps)


def knows_bare(watch: Watch, tolerance: float) -> bool:
    """Tell whether every answer without guidance is among those with guidance."""
    known = KnownAnswers(watch.guided)
    # a run, because a ControlNet's known answer is an input of the denoiser, and bit by bit not the computed one
    tape = watch.off(answer=known, forced=watch.along)
    if known.unknown or len(tape.called) != len(watch.bare.called):
        return False
    pairs = zip(tape.called, watch.bare.called, strict=True)
    return all(difference(packed(one.answer), packed(other.answer)) <= tolerance for one, other in pairs)


def renewed(call: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Return a function that makes the call anew, with its generators in the state they have now."""
    many = call.get("generator")
    generators = many if isinstance(many, (list, tuple)) else [many]
    states = [one.get_state() if isinstance(one, torch.Generator) else None for one in generators]

    def make() -> dict[str, Any]:
        for one, state in zip(generators, states, strict=True):
            if isinstance(one, torch.Generator) and state is not None:
                one.set_state(state)
        return dict(call)

    return make


def result_difference(one: Any, other: Any) -> float:
    """Compare what two runs gave; without guidance some pipelines leave out what they give for the other branch."""
    ours, theirs = numbers(one), numbers(other)
    shared = ours.keys() & theirs.keys()
    return max((difference(ours[name], theirs[name]) for name in shared), default=0.0)


def numbers(result: Any, name: str = "") -> dict[str, Tensor]:
    """Return the pictures, latents or sounds in a pipeline's answer as tensors by place."""
    if isinstance(result, (dict, list, tuple)):
        parts = result.items() if isinstance(result, dict) else enumerate(result)
        return {key: value for place, part in parts for key, value in numbers(part, f"{name}.{place}").items()}
    try:
        return {name: torch.as_tensor(result)}
    except (TypeError, RuntimeError, ValueError):
        return {}


def input_error(watch: Watch) -> float:
    """Return how far the student's inputs are from those of the nearest guided branch, at the worst step."""
    worst = 0.0
    for step, guided in zip(watch.bare.steps, watch.guided.steps, strict=True):
        called = watch.bare.answering(step)
        first = max((s.call for s in watch.guided.steps if s.call < guided.call), default=-1) + 1
        branches = [
            branch
            for other in watch.guided.called[first : guided.call + 1]
            if other.denoiser == called.denoiser
            for branch in parts_of(other.call.tensors, called.call.tensors)
        ]
        worst = max(worst, min((distance(branch, called.call.tensors) for branch in branches), default=float("inf")))
    return worst


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((difference(one[name], other[name]) for name in one), default=float("inf"))
