"""A recorded call is the call: what a student will see, replayed as training does, gives the answers that were seen."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from PIL.Image import Image
from torch import Tensor, nn

from guidefold.answers import by_image
from guidefold.arguments import unwritten, written
from guidefold.capture.known import alike
from guidefold.capture.run import run
from guidefold.capture.switch import Switch
from guidefold.capture.tape import Called, cloned
from guidefold.denoiser import Call, predict
from guidefold.errors import GuidefoldError, ModelError

CONDITIONS = ("prompt", "class_labels", "prompt_embeds")  # whichever of them a call gives says how many images it makes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the tensors of a denoiser's calls for several images have a row for each."""

    images: int
    shared: frozenset[str] = frozenset()  # nowhere: positions, rotary embeddings
    second: frozenset[str] = frozenset()  # in the second dimension: the layers of an encoder are the first

    def with_rows(self, call: Call) -> Self:
        """Return the layout in which what is as long as there are images has a row for each."""
        return replace(self, shared=frozenset(name for name in self.shared if len(call.tensors[name]) != self.images))


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a denoiser's calls are recorded."""

    layout: Layout
    static: dict[str, Any]  # the arguments without tensors, the same in all calls
    left_out: frozenset[str]  # objects without which the answers are the same
    error: float  # of the answers to calls made again, relative to the largest value

    def rows(self, call: Call, images: int) -> dict[str, Tensor]:
        """Return the tensors of a call with a row per image [images, ...]; see `Call.by_image`."""
        return call.by_image(images, self.layout.shared, self.layout.second)


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    if one.shape != other.shape:
        return float("inf")
    gap, size = (one.float() - other.float()).abs().max(), other.float().abs().max()
    worst = float(gap / size) if size else float(gap)
    return worst if math.isfinite(worst) else float("inf")


def images_of(call: dict[str, Any], rows: int) -> int:
    """Return how many images a pipeline's call makes; `rows`, its denoiser's, are several for one image of frames."""
    given = next((call[name] for name in CONDITIONS if call.get(name) is not None), None)
    count = len(given) if isinstance(given, (list, tuple, Tensor)) else 1
    for name, value in call.items():
        count *= value if name.endswith("_per_prompt") and isinstance(value, int) else 1
    return count if count and rows % count == 0 else 1


def layout_of(pipe: Any, call: dict[str, Any], switch: Switch, called: Sequence[Called], images: int) -> Layout:
    """Find out where the tensors of a denoiser's calls have their images: what is longer for more images has them.

    Where a call for another number of images cannot be made, those tensors have none that never change and are neither
    as long as there are images nor as the latents.
    """
    seen = called[0].call
    names = [name for name, value in seen.tensors.items() if value.dim() and name != seen.timestep]
    other = other_call(pipe, call, switch, called[0], images)
    if other is None:
        still = [name for name in names if all(held(one.call, name, seen.tensors[name]) for one in called)]
        fixed = frozenset(name for name in still if len(seen.tensors[name]) not in (images, seen.rows))
        return Layout(images=images, shared=fixed)
    shapes = {name: (seen.tensors[name].shape, other.tensors[name].shape) for name in names if name in other.tensors}
    shared = frozenset(name for name, (one, two) in shapes.items() if one == two)
    second = frozenset(
        name for name, (one, two) in shapes.items()
        if len(one) == len(two) > 1 and one[0] == two[0] and one[1] == images and one[1] != two[1]
    )  # fmt: skip
    return Layout(images=images, shared=shared, second=second)


def other_call(pipe: Any, call: dict[str, Any], switch: Switch, called: Called, images: int) -> Call | None:
    """Return the first call of a denoiser in a run for another number of images, or None if there is no such run."""
    for pictures in (False, True):
        try:
            with switch.without(pipe):
                tape = run(pipe, switch.off(resized(call, images, pictures=pictures)))
        except Exception:  # an argument is for a fixed number of images
            continue
        found = next((one.call for one in tape.called if one.denoiser == called.denoiser), called.call)
        if found.rows != called.call.rows:
            return found
    return None


def held(call: Call, name: str, value: Tensor) -> bool:
    """Tell whether a call has this tensor too."""
    return name in call.tensors and torch.equal(call.tensors[name], value)


def resized(call: dict[str, Any], images: int, *, pictures: bool) -> dict[str, Any]:
    """Return a call for one image in place of several, or for two in place of one; `pictures` are counted too."""
    made, texts = dict(call), ("prompt", *(("image", "video", "mask") if pictures else ()))
    for name, value in call.items():
        if not (any(text in name for text in texts) or name in ("class_labels", "generator")):
            continue
        if isinstance(value, (str, Image)):
            made[name] = [value] * 2 if images == 1 else value
        elif isinstance(value, torch.Generator):
            made[name] = [value] * (2 if images == 1 else 1)
        elif isinstance(value, Tensor) and value.dim() and len(value) == images:
            made[name] = value[:1] if images > 1 else torch.cat([value, value])
        elif isinstance(value, (list, tuple)) and len(value) == images:
            made[name] = [*value[:1]] if images > 1 else [*value, *value]
    return made


def kept_once(calls: Sequence[Call]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments without tensors that all calls have, as a store gives them back, and those it cannot.

    Raises ModelError for what changes from one call to the next.
    """
    first = calls[0].static
    kept = {name: given_back(value) for name, value in first.items()}
    objects = {name: value for name, value in first.items() if not alike(kept[name], value)}
    for call in calls[1:]:
        for name in sorted((first.keys() | call.static.keys()) - objects.keys()):
            check_same(name, first.get(name), call.static.get(name))
    return {name: value for name, value in kept.items() if name not in objects}, objects


def check_same(name: str, before: Any, now: Any) -> None:
    """Raise ModelError where an argument that is kept once for all states differs."""
    if not alike(before, now):
        raise ModelError(
            f"the denoiser's argument {name} changes from {before!r} to {now!r}; such arguments cannot be recorded yet"
        )


def given_back(value: Any) -> Any:
    """Return a value as a store's index gives it back, and None for what is none of JSON's."""
    try:
        return unwritten(json.loads(json.dumps(written(value))))
    except (TypeError, ValueError, RecursionError):
        return None


@torch.no_grad()
def replay(denoiser: nn.Module, called: Sequence[Called], layout: Layout, tolerance: float) -> Replay:
    """Make recorded calls again: each alone, and the states of all in one batch, as training mixes them.

    An object that cannot be recorded, such as an empty cache, is left out if the answers are the same without it.
    Raises ModelError where calls cannot be recorded, cannot be made again, or are answered otherwise.
    """
    static, objects = kept_once([one.call for one in called])
    made = Replay(layout=layout, static=static, left_out=frozenset(objects), error=0.0)
    states = [made.rows(one.call, layout.images) for one in called]
    check_alike(states)
    answers = [by_image(one.answer, layout.images) for one in called]
    kind, error = type(denoiser).__name__, 0.0
    try:
        for number, (state, answer) in enumerate(zip(states, answers, strict=True), 1):
            error = max(error, missed(denoiser, state, static, answer))
            if error > tolerance:
                raise ModelError(
                    f"call {number} of {kind}, made again from its record, gives another answer (relative error "
                    f"{error:.1e}): it answers to more than its arguments; such a denoiser cannot be recorded"
                )
    except Exception as error_seen:
        if objects:
            name, value = next(iter(objects.items()))
            raise ModelError(
                f"the denoiser's argument {name} is a {type(value).__name__}; such arguments cannot be recorded yet"
            ) from error_seen
        raise
    mixed = {name: torch.cat([state[name] for state in states]) for name in states[0]}
    error = max(error, missed(denoiser, mixed, static, torch.cat(answers)))
    if error > tolerance:
        raise ModelError(
            f"the states of several steps of {kind} in one batch give other answers than alone (relative error "
            f"{error:.1e}); such a denoiser cannot be recorded"
        )
    return replace(made, error=error)


def missed(denoiser: nn.Module, state: dict[str, Tensor], static: dict[str, Any], answer: Tensor) -> float:
    """Return how far the answer to a recorded call is from the one that was seen. Raises ModelError."""
    # a store knows no order of names; what is given is not to be written into
    given = {name: cloned(value) for name, value in sorted(state.items())}
    try:
        return difference(predict(denoiser, given, static), answer)
    except GuidefoldError:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"a recorded call of {type(denoiser).__name__} cannot be made again ({told}); "
            "such a denoiser cannot be recorded yet"
        ) from error


def check_alike(states: Sequence[dict[str, Tensor]]) -> None:
    """Raise ModelError where the inputs of several steps have other names or shapes."""
    for state in states[1:]:
        for name in sorted(states[0].keys() | state.keys()):
            one, other = (
                str(tuple(each[name].shape[1:])) if name in each else "nothing" for each in (states[0], state)
            )
            if one != other:
                raise ModelError(
                    f"the denoiser's argument {name.partition('@')[0]} changes along a trajectory, from shape {one} to "
                    f"{other}; such arguments cannot be recorded yet"
                )
