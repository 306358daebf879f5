"""Modulations of the steps to come, worked out together where a pipeline knows which timesteps they will have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from guidefold.adapters.network import Modulations
from guidefold.adapters.scales import numberless

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting

Times = Callable[[], Tensor | None]
NUMBERS = 2**23  # at most so many are held: 32 MiB


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Modulations with a row per timestep, of one scale and one code."""

    scale: Tensor
    code: Tensor
    times: Tensor
    made: Modulations

    def row(self, scale: Tensor, code: Tensor | None, timestep: Tensor) -> int | None:
        """Return the row of a timestep; None where it is not among them, or scale or code are others."""
        known = scale is self.scale and code is self.code
        return place_of(timestep, self.times) if known else None


def place_of(timestep: Tensor, times: Tensor) -> int | None:
    """Return where a timestep stands among others [T], if it does.

    Its number would make a GPU wait: there it is one of them if it lies where one of them lies.
    """
    if timestep.numel() != 1 or numberless(timestep):
        return None
    if timestep.device.type == "cpu":
        places = (times == timestep).nonzero()
        return int(places[0]) if len(places) else None
    offset = timestep.data_ptr() - times.data_ptr()
    alike = timestep.device == times.device and timestep.dtype == times.dtype
    return offset // times.itemsize if alike and 0 <= offset < times.nbytes else None


def timesteps_of(pipe: Any) -> Tensor | None:
    """Return the timesteps [T] of the run that a pipeline is in, if it tells."""
    times = getattr(getattr(pipe, "scheduler", None), "timesteps", None)
    return times if isinstance(times, Tensor) and times.dim() == 1 else None


def work_ahead(
    adapter: "Acting", asked: Tensor, scale: Tensor, code: Tensor, timestep: Tensor, times: Tensor | None
) -> Ahead | None:
    """Return the modulations of a timestep and of those after it, at the first of `scale` [B, ...] and `code` [B, W].

    `asked` are the scales that a call asked for, by which they are known again.
    """
    assert adapter.film is not None
    limit = NUMBERS // max(1, adapter.film.head.out_features)
    if times is None or limit < 2:
        return None
    for known in (times, times / 1000):  # as most denoisers are told, and as those of flow matching
        start = place_of(timestep, known)
        if start is not None:
            some = known[start : start + limit]
            made = adapter.modulations(
                scale[:1].expand(len(some), *scale.shape[1:]),
                {adapter.spec.timestep: some.to(code.device)},
                torch.float32,
                code[:1].expand(len(some), -1),
            )
            return Ahead(scale=asked, code=code, times=some, made=made)
    return None
