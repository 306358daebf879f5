"""What a denoiser is given of a prompt, swapped for what it would be given of the negative prompt."""

from typing import Any

import torch
from torch import Tensor, nn

from guidefold.adapters.conditions import NEGATIVE as PREFIX
from guidefold.adapters.conditions import ConditionSpec, conditions_of
from guidefold.denoiser import read_call
from guidefold.errors import InputError, ModelError


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
