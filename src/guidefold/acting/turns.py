"""Whose turn it is at a denoiser: one call at a time, and a turn whose call is gone is over."""

import sys
import threading
from types import FrameType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from torch import nn

PATIENCE = 0.1  # seconds between looks at whether the call that is waited for still runs
MACHINERY = ("guidefold.", "torch._dynamo.")  # between a hook and the call that runs it


class Holder(Protocol):
    """What has a turn, and can undo what it has changed."""

    def restore(self) -> None: ...


class Turns:
    """A lock whose holder is a running call, not a thread.

    Ctrl-C, or whatever else is no `Exception`, ends a call without its last hook: then nobody gives the turn back, and
    whoever is next takes it.
    """

    def __init__(self) -> None:
        self.changed, self.owner = threading.Condition(), 0
        self.frame: FrameType | None = None
        self.holder: Holder | None = None

    @property
    def mine(self) -> bool:
        return self.owner == threading.get_ident()

    def take(self, frame: FrameType, holder: Holder) -> None:
        """Wait until no other thread's call has the turn, and undo what a call that is gone has left."""
        with self.changed:
            while self.owner and not self.mine and self.runs():
                self.changed.wait(PATIENCE)
            left = self.holder
            self.owner, self.frame, self.holder = threading.get_ident(), frame, holder
        if left is not None:
            left.restore()

    def give(self) -> None:
        with self.changed:
            self.owner, self.frame, self.holder = 0, None, None
            self.changed.notify()

    def runs(self) -> bool:
        """Tell whether the call that has the turn is still on its thread's stack."""
        frame = sys._current_frames().get(self.owner)
        while frame is not None and frame is not self.frame:
            frame = frame.f_back
        return frame is not None


TURNS: WeakKeyDictionary[nn.Module, Turns] = WeakKeyDictionary()
LOCK = threading.Lock()


def turns_at(denoiser: nn.Module) -> Turns:
    """Return the turns at a denoiser, the same for a shallow copy of it, which has the same layers."""
    with LOCK:
        return TURNS.setdefault(next(denoiser.children(), denoiser), Turns())


def running() -> Any:
    """Return the frame of the call that runs this thread's hook."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(MACHINERY):
        frame = frame.f_back
    return frame
