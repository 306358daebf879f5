"""What a call asks of adapters: it belongs to the running thread and call, never to the adapter.

A context variable carries it, read when the denoiser is called, outside the compiler's graphs: so threads, overlapping
calls and calls within callbacks each have their own, and nothing is left behind.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from guidefold.acting.swaps import Negative


@dataclass
class Memory:
    """What a request has worked out of conditions that come again at the next step."""

    key: list | None = None  # where the conditions lie; they are held, so that nothing else comes to lie there
    held: list[Tensor] = field(default_factory=list)
    code: Tensor | None = None
    alike: bool = False  # all rows have the same conditions
    scale: Tensor | None = None  # and the strength that it comes to, where that was asked for
    strength: float = 0.0
    calls: int = 0  # how often the adapter was asked


@dataclass(frozen=True)
class Request:
    """What one call asks of one adapter: guidance scales [1], [B] or [B, D], and the negative prompt's conditions.

    `uniform`: all images have the same scales. `once`: for one call alone.
    """

    scale: Tensor
    negative: Negative | None = None
    uniform: bool = True
    once: bool = False
    memory: Memory = field(default_factory=Memory)

    @classmethod
    def of(cls, scale: Tensor, negative: Negative | None = None, *, once: bool = False) -> "Request":
        return cls(scale=scale, negative=negative, uniform=is_uniform(scale), once=once)

    def at(self, scale: Tensor) -> "Request":
        """Return the same request at other scales; what it remembers of conditions stays."""
        return replace(self, scale=scale, uniform=is_uniform(scale))


def is_uniform(scale: Tensor) -> bool:
    """Tell whether all images have the same scales, where they can be looked at."""
    if len(scale) == 1:
        return True
    return scale.device.type != "meta" and bool((scale == scale[:1]).all())


REQUESTS: ContextVar[Mapping[int, Request]] = ContextVar("guidefold_requests")
DISABLED: ContextVar[tuple[int, ...]] = ContextVar("guidefold_disabled", default=())


def request_of(adapter: Any) -> Request | None:
    """Return what the running call asks of an adapter, if anything."""
    return REQUESTS.get({}).get(id(adapter))


def ask(adapter: Any, request: Request | None) -> None:
    """Ask something of an adapter from here on, or nothing any more."""
    rest = {key: value for key, value in REQUESTS.get({}).items() if key != id(adapter)}
    REQUESTS.set(rest if request is None else {**rest, id(adapter): request})


@contextmanager
def asking(requests: Mapping[Any, Request]) -> Iterator[None]:
    """Ask something of adapters for a while."""
    token = REQUESTS.set({**REQUESTS.get({}), **{id(adapter): one for adapter, one in requests.items()}})
    try:
        yield
    finally:
        REQUESTS.reset(token)


@contextmanager
def unasked() -> Iterator[None]:
    """Ask nothing of any adapter for a while: what runs within a call need not be part of it."""
    token = REQUESTS.set({})
    try:
        yield
    finally:
        REQUESTS.reset(token)


@contextmanager
def disabling(adapter: Any) -> Iterator[None]:
    """Turn an adapter off for a while, in this thread; whiles may overlap in any order."""
    DISABLED.set((*DISABLED.get(), id(adapter)))
    try:
        yield
    finally:
        rest = list(DISABLED.get())
        rest.remove(id(adapter))
        DISABLED.set(tuple(rest))


def is_disabled(adapter: Any) -> bool:
    return id(adapter) in DISABLED.get()
