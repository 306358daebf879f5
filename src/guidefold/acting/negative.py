"""A negative prompt's conditions: what the denoiser would be called with if it were the prompt."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.adapters.conditions import NEGATIVE as PREFIX
from guidefold.adapters.conditions import ConditionSpec, conditions_of
from guidefold.denoiser import denoisers, find_denoiser, quiet, read_call, replaced
from guidefold.errors import InputError, ModelError
from guidefold.room import forked

NEGATIVE = "negative_"


class Swaps(list[tuple[Any, Any]]):
    """What a denoiser is given of the prompt, each with what the negative prompt has in its place."""

    def add(self, positive: Any, negative: Any) -> None:
        self.append((positive, negative))
        if isinstance(positive, (list, tuple)) and isinstance(negative, (list, tuple)):
            self.extend(zip(positive, negative, strict=False))

    def swapped(self, value: Any, found: list[Any]) -> Any:
        """Return a value as it would be for the negative prompt; add to `found` what was swapped."""
        for positive, negative in self:
            if value is positive or is_cast(value, positive):
                found.append(positive)
                return negative.to(value) if isinstance(value, Tensor) else negative
        if isinstance(value, dict):
            return {name: self.swapped(item, found) for name, item in value.items()}
        return type(value)(self.swapped(item, found) for item in value) if type(value) in (list, tuple) else value

    def conditions(
        self, denoiser: nn.Module, args: tuple, kwargs: dict[str, Any], names: tuple[str, ...]
    ) -> dict[str, Tensor]:
        """Return the conditions of a call, made for the negative prompt. Raises ModelError where it has none of it."""
        found: list[Any] = []
        other = read_call(denoiser, self.swapped(args, found), self.swapped(kwargs, found), names)
        if not found:
            raise ModelError(
                "the guider's negative prompt does not reach the denoiser; use an adapter without negative prompts"
            )
        return conditions_of(other)


def is_cast(value: Any, original: Any) -> bool:
    """Tell whether a tensor is another one in another precision or place."""
    if not (isinstance(value, Tensor) and isinstance(original, Tensor) and value.shape == original.shape):
        return False
    elsewhere = value.dtype != original.dtype or value.device != original.device
    return elsewhere and torch.equal(value, original.to(value))


Negative = dict[str, Tensor] | Swaps


def rows_of_negative(spec: ConditionSpec, negative: dict[str, Tensor] | None, rows: int) -> dict[str, Tensor]:
    """Return the negative prompt's conditions that an adapter takes, a row per image. Raises InputError for none."""
    if negative is None:
        raise InputError("this adapter is conditioned on negative prompts; call the pipeline, or at(negative=...)")
    wanted = {*spec.tokens, *spec.vectors}
    found = {
        f"{PREFIX}{name}": value.repeat_interleave(rows // value.shape[0], dim=0)
        for name, value in negative.items()
        if f"{PREFIX}{name}" in wanted or ("mask" in name and isinstance(value, Tensor))
    }
    if missing := [name for name in wanted if name.startswith(PREFIX) and name not in found]:
        raise InputError(
            f"the negative prompt has no {missing[0].removeprefix(PREFIX)}; give it as the prompt is given"
        )
    return found


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


def ending(module: nn.Module, spec: ConditionSpec) -> Callable[..., Any]:
    """Return a `forward` that ends the run if it is called with the conditions that an adapter takes."""
    forward = module.forward

    @torch.compiler.disable
    def watched(*args: Any, **kwargs: Any) -> Any:
        found = wanted(conditions_of(read_call(module, args, kwargs)), spec)
        if found is not None:
            raise Seen(found)
        return forward(*args, **kwargs)

    return watched


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
        with quiet(pipe), generators_kept(pipe, call.get("generator")), ExitStack() as stack:
            for part in alike:
                stack.enter_context(replaced(part, "forward", ending(part, spec)))
            kind.__call__(pipe, **call, **more)
    except Seen as seen:
        return seen.conditions
    raise ModelError(f"{kind.__name__} never called its denoiser with the negative prompt's conditions")
