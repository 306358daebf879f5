"""A negative prompt's conditions: what the denoiser would be called with if it were the prompt."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from guidefold.denoiser import find_denoiser, quiet, read_call, replaced
from guidefold.errors import ModelError

NEGATIVE = "negative_"


class Seen(Exception):
    """Ends a run at the denoiser's first call, whose tensors it carries."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors


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
def generators_kept(generators: Any) -> Iterator[None]:
    """Give random number generators their state back."""
    many = generators if isinstance(generators, (list, tuple)) else [generators]
    states = [(one, one.get_state()) for one in many if isinstance(one, torch.Generator)]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for one, state in states:
            one.set_state(state)


@torch.no_grad()
def negative_conditions(pipe: Any, kind: type, arguments: dict[str, Any], names: set[str]) -> dict[str, Tensor]:
    """Return the named conditions of the negative prompt, of a call whose guidance is off; the denoiser does not run.

    `kind` is the class whose `__call__` is called. Raises ModelError for a pipeline without negative prompts.
    """
    if not any(name.startswith(NEGATIVE) for name in arguments):
        raise ModelError(f"{kind.__name__} takes no negative prompt; use an adapter without negative prompts")
    denoiser = find_denoiser(pipe)

    def forward(*args: Any, **kwargs: Any) -> Any:
        call = read_call(denoiser, args, kwargs)
        raise Seen({name: value.detach() for name, value in call.tensors.items() if name in names or "mask" in name})

    call = {name: value for name, value in swapped(arguments).items() if name != "self"}
    more = call.pop("kwargs", {})
    try:
        with quiet(pipe), generators_kept(call.get("generator")), replaced(denoiser, "forward", forward):
            kind.__call__(pipe, **call, **more)
    except Seen as seen:
        return seen.tensors
    raise ModelError(f"{kind.__name__} never called its denoiser")
