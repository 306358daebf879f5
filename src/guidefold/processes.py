"""Which of several processes this is, as `torchrun` and `accelerate launch` say, before any of them talk."""

import os

from guidefold.errors import InputError

ADVICE = "start several processes with torchrun or accelerate launch, or unset RANK and WORLD_SIZE"


def place() -> tuple[int, int]:
    """Return this process's number and how many there are: 0 of 1 unless launched as several.

    Raises InputError where the environment says only a part of it, or what cannot be.
    """
    rank, world = number("RANK"), number("WORLD_SIZE")
    if rank is None and world in (None, 1):
        return 0, 1
    if rank is None or world is None:
        given, missing = ("RANK", "WORLD_SIZE") if world is None else ("WORLD_SIZE", "RANK")
        raise InputError(f"{given} is {os.environ[given]} in the environment, but {missing} is not set; {ADVICE}")
    if rank >= world:
        raise InputError(f"RANK is {rank} of WORLD_SIZE {world}, which counts from 0; {ADVICE}")
    lacking = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if world > 1 and lacking:  # nobody to wait for
        raise InputError(f"WORLD_SIZE is {world} in the environment, but {lacking[0]} is not set; {ADVICE}")
    return rank, world


def number(name: str) -> int | None:
    """Return a variable of the environment, or None where it is not set. Raises InputError unless it is a count."""
    text = os.environ.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{name} is {text!r} in the environment; {ADVICE}")
    return int(text)


def own_gpu() -> str:
    """Return the GPU of this process: each of several has its own. Raises InputError as `place` does."""
    return "cuda" if place()[1] == 1 else f"cuda:{number('LOCAL_RANK') or 0}"
