"""What a call asks of adapters: it belongs to the running thread and call, never to the adapter.

A context variable carries it, read when the denoiser is called, outside the compiler's graphs: so threads, overlapping
calls and calls within callbacks each have their own, and nothing is left behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

from torch import Tensor

from guidefold.acting.ahead import Ahead, Times
from guidefold.acting.swaps import Negative
from guidefold.adapters.scales import numberless


@dataclass
class Memory:
    """What a request has worked out of conditions that come again at the next step."""

    key: list | None = None  # where the conditions lie; they are held, so that nothing else comes to lie there
    held: list[Tensor] = field(default_factory=list)
    code: Tensor | None = None
    alike: bool = False  # all rows have the same conditions
    parameters: list[Tensor] | None = None  # to write in the folded form, of the place and on the device in `where`
    where: tuple | None = None
    scale: Tensor | None = None  # and the strength that it comes to, where that was asked for
    strength: float = 0.0
    calls: int = 0  # how often the adapter was asked
    times: Times | None = None  # what tells the timesteps of the run
    before: Tensor | None = None  # the code of the call before
    ahead: Ahead | None = None


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
    def of(
        cls, scale: Tensor, negative: Negative | None = None, *, once: bool = False, times: Times | None = None
    ) -> "Request":
        memory = Memory(times=times)
        return cls(scale=scale, negative=negative, uniform=is_uniform(scale), once=once, memory=memory)

    def at(self, scale: Tensor) -> "Request":
        """Return the same request at other scales; what it remembers of conditions stays."""
        return replace(self, scale=scale, uniform=is_uniform(scale))


def is_uniform(scale: Tensor) -> bool:
    """Tell whether all images have the same scales, where they can be looked at."""
    if len(scale) == 1:
        return True
    return not numberless(scale) and bool((scale == scale[:1]).all())


@dataclass(frozen=True, eq=False)
class Asked:
    """A request in force, of an adapter that it does not keep alive, and what tells it from any other."""

    adapter: ref
    request: Request
    key: object = field(default_factory=object)


REQUESTS: ContextVar[tuple[Asked, ...]] = ContextVar("guidefold_requests", default=())  # the last of an adapter counts
DISABLED: ContextVar[tuple[int, ...]] = ContextVar("guidefold_disabled", default=())


def asked_of(adapter: Any) -> Asked | None:
    return next((one for one in reversed(REQUESTS.get()) if one.adapter() is adapter), None)


def request_of(adapter: Any) -> Request | None:
    """Return what the running call asks of an adapter, if anything."""
    asked = asked_of(adapter)
    return None if asked is None else asked.request


def ask_instead(adapter: Any, request: Request) -> None:
    """Ask something else of an adapter for as long as what was asked last is in force."""
    asked = asked_of(adapter)
    REQUESTS.set(tuple(replace(one, request=request) if one is asked else one for one in REQUESTS.get()))


def ask_once(adapter: Any, request: Request) -> None:
    """Ask something of an adapter's next call."""
    forget_once(adapter)
    REQUESTS.set((*REQUESTS.get(), Asked(ref(adapter), request)))


def forget_once(adapter: Any) -> None:
    """Forget what was asked of an adapter's next call."""
    kept = [one for one in REQUESTS.get() if not one.request.once or one.adapter() not in (adapter, None)]
    REQUESTS.set(tuple(kept))


@contextmanager
def asking(adapter: Any, request: Request) -> Iterator[None]:
    """Ask something of an adapter for a while; whiles may overlap in any order."""
    asked = Asked(ref(adapter), request)
    REQUESTS.set((*REQUESTS.get(), asked))
    try:
        yield
    finally:
        REQUESTS.set(tuple(one for one in REQUESTS.get() if one.key is not asked.key))


@contextmanager
def unasked() -> Iterator[None]:
    """Ask nothing of any adapter for a while: what runs within a call need not be part of it."""
    before = REQUESTS.get()
    REQUESTS.set(())
    try:
        yield
    finally:
        REQUESTS.set(before)


@contextmanager
def disabling(adapter: Any) -> Iterator[None]:
    """Turn an adapter off for a while, in this thread; whiles may overlap in any order."""
    DISABLED.set((*DISABLED.get(), id(adapter)))
    try:
        yield
    finally:
        rest = list(DISABLED.get())
        if id(adapter) in rest:  # a generator may end in another context than it began in
            rest.remove(id(adapter))
        DISABLED.set(tuple(rest))


def is_disabled(adapter: Any) -> bool:
    return id(adapter) in DISABLED.get()
