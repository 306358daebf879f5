"""Run a pipeline again and again from the same state: same noise, same prompt, nothing left behind."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from guidefold.capture.tape import Answer, Step, Tape, taped
from guidefold.denoiser import denoisers
from guidefold.errors import GuidefoldError, InputError, ModelError
from guidefold.memory import is_of_memory
from guidefold.room import forked

SET = ("num_inference_steps", "generator", "output_type")  # by us, where a pipeline's call takes them


def parameters_of(pipe: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a pipeline's call by name."""
    return dict(inspect.signature(type(pipe).__call__).parameters)


def condition_argument(pipe: Any) -> str:
    """Return the argument that conditions go to: prompts or class labels. Raises ModelError for another pipeline."""
    known = parameters_of(pipe)
    found = next((name for name in ("prompt", "class_labels") if name in known), None)
    if found is None:
        raise ModelError(f"{type(pipe).__name__}.__call__ takes neither a prompt nor class_labels")
    return found


def check_arguments(pipe: Any, arguments: Iterable[str], taken: Collection[str] = ()) -> None:
    """Raise InputError for an argument that a pipeline's call lacks, ignores, or that is not the user's to give."""
    given, known = list(arguments), parameters_of(pipe)
    # most pipelines take both or their defaults
    for name, other in (("height", "width"), ("width", "height")):
        if name in given and other in known and other not in given:
            raise InputError(f"the argument {name} is ignored without {other}; give both")
    for name in given:
        if name not in known:
            raise InputError(f"the argument {name} is none of {type(pipe).__name__}.__call__; leave it out")
        # one image a prompt: each has its own noise, scale and negative prompt
        if name in {"self", *SET, condition_argument(pipe), *taken} or name.endswith("_per_prompt"):
            raise InputError(f"the argument {name} is set by guidefold; leave it out")


def as_conditions(pipe: Any, texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return conditions as an argument of a pipeline's call. Raises InputError for class labels that are no numbers."""
    name = condition_argument(pipe)
    if name == "prompt":
        return {name: list(texts)}
    try:
        return {name: [int(text) for text in texts]}
    except ValueError as error:
        raise InputError(
            f"{type(pipe).__name__} takes class labels, but a condition is no whole number: {error}"
        ) from error


@contextmanager
def processors_kept(pipe: Any) -> Iterator[None]:
    """Give denoisers their attention processors back: some pipelines replace them, and a failed run leaves them so."""
    parts: list[Any] = [part for part in denoisers(pipe).values() if hasattr(part, "attn_processors")]
    before = {part: dict(part.attn_processors) for part in parts}
    try:
        yield
    finally:
        for part, processors in before.items():
            if part.attn_processors != processors:
                part.set_attn_processor(dict(processors))


@contextmanager
def failures_told(pipe: Any) -> Iterator[None]:
    """Raise ModelError in place of what a pipeline's own call raises."""
    try:
        yield
    except GuidefoldError:
        raise
    except Exception as error:
        if is_of_memory(error):
            raise
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(
            f"{type(pipe).__name__} fails with these arguments ({told}); give ones that it runs with"
        ) from error


def run(pipe: Any, call: dict[str, Any], *, answer: Answer | None = None, forced: Sequence[Step] = ()) -> Tape:
    """Run a pipeline once, watched; the same `call` gives the same run."""
    given = dict(call)
    if "generator" in parameters_of(pipe) and "generator" not in given:
        given["generator"] = torch.Generator().manual_seed(0)
    with forked(pipe), torch.no_grad(), processors_kept(pipe), taped(pipe, answer=answer, forced=forced) as tape:
        torch.manual_seed(0)
        tape.result = pipe(**given)
    return tape


def titles(pipe: Any, conditions: Iterable[str]) -> list[str]:
    """Return what pictures show, in words: prompts as they are, class labels by the first of their names."""
    names: dict[str, str] = {}
    for name, label in (getattr(pipe, "labels", None) or {}).items():
        names.setdefault(str(label), name)
    return [names.get(str(condition), str(condition)) for condition in conditions]
