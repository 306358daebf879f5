"""Pictures are encoded once, though a call with a negative prompt prepares its inputs twice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from guidefold.denoiser import components

ENCODERS = ("vae", "movq", "vqvae", "image_encoder", "vision_encoder")
Known = dict[tuple[int, str], list[tuple[tuple, Any]]]

KNOWN: ContextVar[Known | None] = ContextVar("guidefold_known", default=None)
USERS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()  # how many calls have an encoder wrapped
LOCK = threading.Lock()


@contextmanager
def encoded_once(pipe: Any) -> Iterator[None]:
    """Answer what a pipeline's encoders of pictures are asked again with what they answered before, in this call."""
    parts = [part for name, part in components(pipe).items() if name in ENCODERS and isinstance(part, nn.Module)]
    token = KNOWN.set({})
    for part in parts:
        wrap(part)
    try:
        yield
    finally:
        for part in parts:
            unwrap(part)
        KNOWN.reset(token)


def wrap(part: nn.Module) -> None:
    with LOCK:
        if not USERS.get(part):
            for name in methods(part):
                vars(part)[name] = remembering(part, name, getattr(part, name), vars(part).get(name))
        USERS[part] = USERS.get(part, 0) + 1


def unwrap(part: nn.Module) -> None:
    with LOCK:
        USERS[part] -= 1
        for name in methods(part) if not USERS[part] else ():
            before = vars(part).pop(name).before
            if before is not None:
                vars(part)[name] = before


def methods(part: nn.Module) -> list[str]:
    """Return what an encoder is called by: a VAE encodes, a vision model is called as a module."""
    return ["encode"] if hasattr(part, "encode") else ["forward"]


def remembering(part: nn.Module, name: str, method: Callable[..., Any], before: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        known = KNOWN.get()
        if known is None:
            return method(*args, **kwargs)
        given = (*args, *kwargs.items())
        answers = known.setdefault((id(part), name), [])
        for asked, answer in answers:
            if same(asked, given):
                return answer
        answer = method(*args, **kwargs)
        answers.append((given, answer))
        return answer

    call.before = before  # pyright: ignore[reportFunctionMemberAccess]
    return call


def same(one: Any, other: Any) -> bool:
    """Tell whether two calls' arguments are the same, number by number."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
        return alike and torch.equal(one, other)
    if isinstance(one, (tuple, list)) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return one is other or (isinstance(one, (bool, int, float, str)) and one == other)
