"""Watch a pipeline run: what its denoisers are called with and answer, and what its schedulers receive."""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.answers import leaves, refilled
from guidefold.denoiser import Call, components, denoisers, quiet, read_call, replaced
from guidefold.errors import ModelError

Answer = Callable[[str, int, Call], Any]  # (denoiser, number of the call among all, the call) -> what it answers


@dataclass(frozen=True, kw_only=True)
class Called:
    """One call of a denoiser and its answer."""

    denoiser: str
    call: Call
    answer: Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a scheduler: what it received, which of the tape's calls came before it, and what it made of it."""

    received: Tensor
    call: int
    made: Any  # the step's answer: the next latents, alone or first of several


@dataclass
class Tape:
    """What happened in one run of a pipeline."""

    called: list[Called] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    result: Any = None

    @property
    def rows(self) -> int:
        """The work of all denoiser calls: their batch sizes added up."""
        return sum(one.call.rows for one in self.called)

    def answering(self, step: Step) -> Called:
        """Return the call that a step's input came from."""
        return self.called[step.call]

    def before(self, number: int) -> dict[str, Called]:
        """Return the last calls of other networks before a denoiser's call and after its previous one, by component."""
        found: dict[str, Called] = {}
        for one in reversed(self.called[:number]):
            if one.denoiser == self.called[number].denoiser:
                break
            found.setdefault(one.denoiser, one)
        return found


def schedulers(pipe: Any) -> set[type]:
    """Return the classes of a pipeline's schedulers."""
    parts = [*components(pipe).values(), *vars(pipe).values()]
    return {type(part) for part in parts if callable(getattr(part, "step", None))}


def cloned(value: Any) -> Any:
    """Return a copy of an answer: caches and buffers of the pipeline would overwrite the original."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        made = copy.copy(value)
        for key, item in value.items():
            made[key] = cloned(item)
        return made
    return type(value)(cloned(item) for item in value) if isinstance(value, (list, tuple)) else value


@contextmanager
def taped(pipe: Any, *, answer: Answer | None = None, forced: Sequence[Step] = ()) -> Iterator[Tape]:
    """Watch a run.

    With `answer` the denoisers do not compute: their k-th call in all returns `answer(denoiser, k, call)`, unless that
    is None. With `forced` the k-th step goes where `forced[k]` went, so that the run follows another run's trajectory;
    the tape keeps what it received itself.
    """
    tape = Tape()
    with ExitStack() as stack:
        stack.enter_context(quiet(pipe))
        for name, module in denoisers(pipe).items():
            stack.enter_context(replaced(module, "forward", watched_forward(name, module, tape, answer)))
        for scheduler in schedulers(pipe):
            # a class is patched, because some pipelines copy their scheduler
            stack.enter_context(replaced(scheduler, "step", watched_step(scheduler.step, tape, forced)))
        yield tape


def watched_forward(name: str, module: nn.Module, tape: Tape, answer: Answer | None) -> Callable[..., Any]:
    forward = module.forward

    @functools.wraps(forward)
    def watched(*args: Any, **kwargs: Any) -> Any:
        call = read_call(module, args, kwargs)
        # cloned before the call: caches among the arguments grow
        call = Call(**{**vars(call), "tensors": {key: cloned(value) for key, value in call.tensors.items()}})
        result = None if answer is None else answer(name, len(tape.called), call)
        result = forward(*args, **kwargs) if result is None else result
        tape.called.append(Called(denoiser=name, call=call, answer=cloned(result)))
        return result

    return watched


def watched_step(step: Callable[..., Any], tape: Tape, forced: Sequence[Step]) -> Callable[..., Any]:
    @functools.wraps(step)
    def watched(self: Any, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not tape.called:
            raise ModelError(f"{type(self).__name__} steps before any denoiser was called")
        number, received = len(tape.steps), model_output.detach().clone()
        wanted = aligned(forced[number].received, model_output) if number < len(forced) else None
        if wanted is not None:
            model_output = wanted.to(model_output.dtype)
        made = step(self, model_output, *args, **kwargs)
        if wanted is not None:
            made = going_to(forced[number].made, made)
        tape.steps.append(Step(received=received, call=len(tape.called) - 1, made=cloned(made)))
        return made

    return watched


def going_to(there: Any, here: Any) -> Any:
    """Return a step's answer with the latents of another run's."""
    latents = aligned(leaves(there)[0], leaves(here)[0])
    return here if latents is None else refilled(here, [latents.clone(), *leaves(here)[1:]])


def aligned(there: Tensor, here: Tensor) -> Tensor | None:
    """Return a tensor of another run in the shape of one of this run, where one is guided and the other is not.

    Some pipelines give their scheduler the same prediction for both branches: then it is the first of equal parts, or
    as many times the whole. None where the parts differ: the step only prepares what guidance mixes later.
    """
    if there.shape == here.shape:
        return there
    if there.shape[1:] != here.shape[1:]:
        return None
    if here.shape[0] % there.shape[0] == 0:
        return there.repeat(here.shape[0] // there.shape[0], *(1,) * (there.dim() - 1))
    if there.shape[0] % here.shape[0]:
        return None
    parts = there.split(here.shape[0])
    return parts[0] if all(torch.equal(parts[0], part) for part in parts[1:]) else None
