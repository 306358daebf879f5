"""What runs out of memory, told in one line that says what to ask less of."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from guidefold.errors import GuidefoldError, InputError
from guidefold.texts import reason

# torch has no type of error for memory that is not a GPU's
SIGNS = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed", "out of memory")


@contextmanager
def memory_told(advice: str, kind: type[GuidefoldError] = InputError) -> Iterator[None]:
    """Raise an error that gives this advice in place of what runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        raise kind(f"out of memory; {advice} ({reason(error)})") from error


def is_of_memory(error: BaseException) -> bool:
    """Tell whether an error is one of memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(sign in str(error) for sign in SIGNS)
