"""A negative prompt's conditions: what the denoiser would be called with if it were the prompt."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.acting.requests import unasked
from guidefold.adapters.conditions import NEGATIVE as PREFIX
from guidefold.adapters.conditions import ConditionSpec, conditions_of
from guidefold.denoiser import denoisers, find_denoiser, quiet, read_call
from guidefold.errors import ModelError
from guidefold.room import forked

NEGATIVE = "negative_"
SEEKING: ContextVar[object] = ContextVar("guidefold_seeking", default=None)  # the run that looks for conditions


class Seen(Exception):
    """Ends a run at a denoiser's first call, whose conditions it carries."""

    def __init__(self, conditions: dict[str, Tensor]) -> None:
        super().__init__()
        self.conditions = conditions


def swapped(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return a call's arguments with every `negative_x` in the place of its `x`; no negative prompt is an empty one."""
    result = dict(arguments)
    pairs = [(name, name.removeprefix(NEGATIVE)) for name in arguments if name.startswith(NEGATIVE)]
    for negative, positive in pairs:
        if positive in arguments:
            result[positive], result[negative] = arguments[negative], None
    count = images(arguments)
    given = result.get("prompt")
    if result.get("prompt_embeds") is not None:
        result["prompt"] = None
    elif given is None or isinstance(given, str):
        result["prompt"] = [given or ""] * count if count else given or ""
    return result


def images(arguments: dict[str, Any]) -> int:
    """Return how many prompts a call has, 0 for a plain one."""
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    return len(prompt) if isinstance(prompt, (list, tuple)) else 0 if embeds is None else len(embeds)


@contextmanager
def generators_kept(pipe: Any, generators: Any) -> Iterator[None]:
    """Give random number generators their state back."""
    many = generators if isinstance(generators, (list, tuple)) else [generators]
    states = [(one, one.get_state()) for one in many if isinstance(one, torch.Generator)]
    try:
        with forked(pipe):
            yield
    finally:
        for one, state in states:
            one.set_state(state)


def wanted(conditions: dict[str, Tensor], spec: ConditionSpec) -> dict[str, Tensor] | None:
    """Return the conditions that an adapter takes of a negative prompt, with their masks; None where one is missing."""
    widths = {**spec.tokens, **spec.vectors}
    for name, width in widths.items():
        value = conditions.get(name.removeprefix(PREFIX))
        if name.startswith(PREFIX) and (value is None or (value.dim() > 1 and value.shape[-1] != width)):
            return None
    return {name: value.detach() for name, value in conditions.items() if f"{PREFIX}{name}" in widths or "mask" in name}


def watcher(module: nn.Module, spec: ConditionSpec, seeking: object) -> Callable[..., None]:
    """Return a hook that ends the run if a denoiser is called with the conditions that an adapter takes."""

    @torch.compiler.disable
    def watch(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if SEEKING.get() is not seeking:
            return  # another thread's call
        found = wanted(conditions_of(read_call(module, args, kwargs)), spec)
        if found is not None:
            raise Seen(found)

    return watch  # pyright: ignore[reportReturnType]


@contextmanager
def watched(parts: list[nn.Module], spec: ConditionSpec) -> Iterator[None]:
    """Watch denoisers for a while, in this thread; no adapter is asked anything meanwhile."""
    seeking = object()
    token, handles = SEEKING.set(seeking), []
    try:
        for part in parts:
            hook = watcher(part, spec, seeking)
            handles.append(part.register_forward_pre_hook(hook, with_kwargs=True, prepend=True))
        with unasked():
            yield
    finally:
        for handle in handles:
            handle.remove()
        SEEKING.reset(token)


@torch.no_grad()
def negative_conditions(pipe: Any, kind: type, arguments: dict[str, Any], spec: ConditionSpec) -> dict[str, Tensor]:
    """Return the conditions of the negative prompt that an adapter takes, of a call whose guidance is off.

    The run ends at the first denoiser of the adapter's class that is called with them, before it computes: of several,
    such as those for early and late steps, the first serves all. `kind` is the class whose `__call__` is called.
    Raises ModelError for a pipeline without negative prompts.
    """
    if not any(name.startswith(NEGATIVE) for name in arguments):
        raise ModelError(f"{kind.__name__} takes no negative prompt; use an adapter without negative prompts")
    parts = {name: getattr(part, "_orig_mod", part) for name, part in denoisers(pipe).items()}
    main = find_denoiser(pipe) if spec.denoiser not in parts else parts[spec.denoiser]
    alike = [part for part in parts.values() if type(part) is type(getattr(main, "_orig_mod", main))]
    call = {name: value for name, value in swapped(arguments).items() if name != "self"}
    more = call.pop("kwargs", {})
    try:
        with quiet(pipe), generators_kept(pipe, call.get("generator")), watched(alike, spec):
            kind.__call__(pipe, **call, **more)
    except Seen as seen:
        return seen.conditions
    raise ModelError(f"{kind.__name__} never called its denoiser with the negative prompt's conditions")


def check_negatives(arguments: dict[str, Any], active: Iterable[Any]) -> None:
    """Raise ValueError, as pipelines do, unless there is one negative prompt, or one for each prompt."""
    prompts, given = arguments.get("prompt"), arguments.get("negative_prompt")
    if not any(adapter.spec.negative for adapter in active) or not isinstance(given, (list, tuple)):
        return
    count = images(arguments) or 1
    if len(given) != count and prompts is not None:
        raise ValueError(f"there are {len(given)} negative prompts for {count} prompts; give as many, or one text")
