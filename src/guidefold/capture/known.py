"""Answers without guidance that a run with guidance has given already: one of its branches was asked the same."""

from typing import Any

import torch
from torch import Tensor

from guidefold.answers import leaves, refilled
from guidefold.capture.tape import Called, Tape
from guidefold.denoiser import Call


class KnownAnswers:
    """Answers to a run along a guided run's trajectory, from the guided run's tape.

    Give it to `run` as `answer`. It compares inputs bit by bit; what no branch was asked, the denoiser computes.
    """

    def __init__(self, tape: Tape) -> None:
        self.called, self.place = tape.called, 0

    def __call__(self, denoiser: str, number: int, call: Call) -> Any:
        """Return the answer of the next branch with these inputs, or None."""
        for place in range(self.place, len(self.called)):
            if self.called[place].denoiser != denoiser:
                continue
            answer = answer_of(self.called[place], call)
            if answer is not None:
                self.place = place
                return answer
        return None


def answer_of(guided: Called, call: Call) -> Any:
    """Return what a guided call answered to the branch that has the inputs of `call`, or None if there is none."""
    tensors = guided.call.tensors
    if tensors.keys() != call.tensors.keys() or not alike(guided.call.static, call.static):
        return None
    branches = parts_of(tensors, call.tensors)
    for part, branch in enumerate(branches):
        if all(same(branch[name], value) for name, value in call.tensors.items()):
            return piece_of(guided.answer, part, len(branches))
    return None


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether other arguments are equal; arrays among them do not tell."""
    try:
        return bool(one == other)
    except (ValueError, RuntimeError):
        return False


def same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def piece_of(answer: Any, part: int, count: int) -> Any:
    """Return one of `count` equal parts of an answer's rows, or None where it has no equal parts."""
    found = leaves(answer)
    if not all(leaf.dim() and leaf.shape[0] % count == 0 for leaf in found):
        return None
    return refilled(answer, [leaf.chunk(count)[part].clone() for leaf in found])


def parts_of(tensors: dict[str, Tensor], like: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split the inputs of several branches in one batch into the branches."""
    counts = {
        tensors[name].shape[0] // max(1, value.shape[0])
        for name, value in like.items()
        if name in tensors and tensors[name].dim() and value.dim() and value.shape[0]
    }
    count = max(counts, default=1)
    return [
        {name: branch(value, like[name], part) for name, value in tensors.items() if name in like}
        for part in range(count)
    ]


def branch(value: Tensor, like: Tensor, part: int) -> Tensor:
    if value.shape == like.shape or not like.dim():
        return value
    return value[part * like.shape[0] : (part + 1) * like.shape[0]]
