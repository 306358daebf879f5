"""Conditional affine of what a denoiser applies anyway (FiLM, Perez et al. 2017, 1709.07871).

With u = tanh(s - 1) and a code c of guidance scale s, timestep and condition, a norm's weight w and bias b become
w (1 + u g(c)) and b (1 + u g(c)) + u h(c); the bias of what makes an adaptive norm's modulation, that of the time
embedding, and a table of modulations t become t + u m(c). At s = 1 and at initialisation nothing changes, bit for bit.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guidefold.adapters.places import AFFINE, GAMMA, Slot, is_place, role_of, slots


@dataclass(frozen=True)
class Span:
    """Which of the head's numbers are a place's gains g and its shifts h or m."""

    gain: slice
    shift: slice


class Film(nn.Module):
    """One squeezed head for all places of `shapes`: a code [B, W] and strengths u [B, 1] to numbers [B, N]."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], width: int, squeeze: int) -> None:
        super().__init__()
        self.spans = spans_of({name: shape for name, shape in shapes.items() if is_place(name)})
        total = max((span.shift.stop for span in self.spans.values()), default=0)
        self.squeeze = nn.Sequential(nn.Linear(width, squeeze), nn.SiLU())
        self.head = nn.Linear(squeeze, total)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, code: Tensor, strength: Tensor) -> Tensor:
        return self.head(self.squeeze(code)) * strength

    @torch.no_grad()
    def take(self, other: "Film") -> None:
        """Take what another head knows of the places that it has; new places start without effect."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        for name, span in other.spans.items():
            mine = slice(self.spans[name].gain.start, self.spans[name].shift.stop)
            theirs = slice(span.gain.start, span.shift.stop)
            self.head.weight[mine] = other.head.weight[theirs]
            self.head.bias[mine] = other.head.bias[theirs]


def spans_of(shapes: dict[str, tuple[int, ...]]) -> dict[str, Span]:
    """Return each place's span, in order: gains [C] and shifts [C] of a norm, shifts alone of the others."""
    spans, start = {}, 0
    for name, shape in shapes.items():
        gains = shape[0] if role_of(name) in (AFFINE, GAMMA) else 0
        shifts = shape[-1] if len(shape) > 1 or not gains else 0  # pyright: ignore[reportGeneralTypeIssues]
        spans[name] = Span(slice(start, start + gains), slice(start + gains, start + gains + shifts))
        start += gains + shifts
    return spans


def slots_of(shapes: dict[str, tuple[int, ...]]) -> list[Slot]:
    """Return the parameters of all places, in order."""
    return [slot for name, shape in shapes.items() if is_place(name) for slot in slots(name, shape)]


def positions(slot: Slot, span: Span, nothing: int) -> tuple[Tensor, Tensor]:
    """Return where in the numbers [N + 1] a parameter's gains and shifts [size] stand; a 0 stands at `nothing`."""
    none = torch.full((slot.size,), nothing)
    gains, shifts = (torch.arange(part.start, part.stop) for part in (span.gain, span.shift))
    if slot.parameter in ("weight", "gamma"):
        return gains, none
    return (gains if len(gains) else none), shifts
