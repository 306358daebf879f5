"""Answers without guidance that a run with guidance has given already: one of its branches was asked the same."""

from typing import Any

import torch
from torch import Tensor

from guidefold.capture.tape import Called, Tape, cloned
from guidefold.denoiser import Call


class KnownAnswers:
    """Answers to a run along a guided run's trajectory, from the guided run's tape.

    Give it to `run` as `answer`. It compares inputs bit by bit; what no branch was asked, the denoiser computes.
    """

    def __init__(self, tape: Tape) -> None:
        self.called, self.place, self.unknown = tape.called, 0, 0

    def __call__(self, denoiser: str, number: int, call: Call) -> Any:
        """Return the answer of the next branch with these inputs, or None."""
        for place in range(self.place, len(self.called)):
            if self.called[place].denoiser != denoiser:
                continue
            answer = answer_of(self.called[place], call)
            if answer is not None:
                self.place = place
                return answer
        self.unknown += 1
        return None


def answer_of(guided: Called, call: Call) -> Any:
    """Return what a guided call answered to the branch that has the inputs of `call`, or None if there is none."""
    named = [{stem_of(name) or name for name in tensors} for tensors in (guided.call.tensors, call.tensors)]
    if named[0] != named[1] or not alike(guided.call.static, call.static):
        return None
    branches = parts_of(guided.call.tensors, call.tensors)
    for part, inputs in enumerate(branches):
        if inputs.keys() == call.tensors.keys() and all(same(inputs[name], call.tensors[name]) for name in inputs):
            try:
                return piece_of(guided.answer, part, len(branches), listed=".[" in call.latents)
            except Uneven:
                return None
    return None


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether other arguments are equal; arrays among them do not tell."""
    try:
        return bool(one == other)
    except (ValueError, RuntimeError):
        return False


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


class Uneven(Exception):
    """An answer has no equal parts."""


def piece_of(answer: Any, part: int, count: int, *, listed: bool) -> Any:
    """Return one of `count` equal parts of an answer: of its tensors' rows, or of the items of its lists.

    Raises Uneven.
    """
    if isinstance(answer, dict):
        made = {name: piece_of(item, part, count, listed=listed) for name, item in answer.items()}
        return type(answer)(**made) if all(isinstance(key, str) for key in made) else type(answer)(made)
    if isinstance(answer, tuple) or (isinstance(answer, list) and not listed):
        return type(answer)(piece_of(item, part, count, listed=listed) for item in answer)
    if not isinstance(answer, (Tensor, list)):
        return answer
    rows, rest = divmod(len(answer) if isinstance(answer, list) or answer.dim() else 0, count)
    if rest or not rows:
        raise Uneven
    return cloned(answer[part * rows : (part + 1) * rows])


def parts_of(tensors: dict[str, Tensor], like: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split the inputs of several branches in one batch into the branches, which have the names of `like`.

    Branches are equal parts of a tensor's rows, or of a list's items; what is as long as in `like` is of all branches.
    """
    lists = {stem_of(name) for name in like if stem_of(name)}
    counts = {items_of(stem, tensors) // items_of(stem, like) for stem in lists}
    counts |= {
        tensors[name].shape[0] // max(1, value.shape[0])
        for name, value in like.items()
        if name in tensors and not stem_of(name) and tensors[name].dim() and value.dim() and value.shape[0]
    }
    count, parts = max(counts, default=1), []
    for part in range(count):
        places = {name: place_of(name, tensors, like, part) for name in tensors}
        named = {place: tensors[name] for name, place in places.items() if place in like}
        parts.append({name: branch(value, like[name], part) for name, value in named.items()})
    return parts


def stem_of(name: str) -> str:
    """Return the list that a tensor is an item of, or nothing."""
    stem, bracket, _ = name.rpartition(".[")
    return stem if bracket and name.endswith("]") else ""


def items_of(stem: str, tensors: dict[str, Tensor]) -> int:
    return sum(stem_of(name) == stem for name in tensors)


def place_of(name: str, tensors: dict[str, Tensor], like: dict[str, Tensor], part: int) -> str:
    """Return the name that a list's item has in its branch, and nothing for those of other branches."""
    stem = stem_of(name)
    ours, theirs = (items_of(stem, one) for one in (tensors, like)) if stem else (0, 0)
    if ours == theirs:
        return name
    number = int(name.removeprefix(f"{stem}.[").removesuffix("]")) - part * theirs
    return f"{stem}.[{number}]" if 0 <= number < theirs else ""


def branch(value: Tensor, like: Tensor, part: int) -> Tensor:
    """Return the rows of a branch, as many as `like` has; all of what is as long as `like` already."""
    if value.shape == like.shape or not like.dim():
        return value
    return value[part * like.shape[0] : (part + 1) * like.shape[0]]
