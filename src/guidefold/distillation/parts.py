"""A batch in as many parts as fit: found by trying where no number is given, the same in every process."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache

from guidefold.config import TrainConfig
from guidefold.errors import RoomError
from guidefold.memory import is_of_memory
from guidefold.trajectories.states import States

T = TypeVar("T")
LESS = "give gradient_checkpointing, mixed_precision bf16, a smaller model (--quantize nf4) or --offload group"


def share(states: States, rank: int, world: int) -> States:
    """Return a process's rows of a batch with `weight` [B]; all have equally many, or one would wait for another.

    Rows that fill up weigh nothing.
    """
    count = len(states["weight"])
    rows = torch.arange(rank, count, world)
    filling = torch.zeros(-(-count // world) - len(rows), dtype=torch.long)
    mine = {name: value[torch.cat([rows, filling])] for name, value in states.items()}
    mine["weight"][len(rows) :] = 0
    return mine


def shares(states: States, parts: int) -> Iterator[States]:
    """Split states in at most so many parts of about the same size."""
    parts = min(parts, len(states["weight"]))
    yield from ({name: value[part::parts] for name, value in states.items()} for part in range(parts))


class Parts:
    """How many parts a batch is computed in: twice as many whenever memory runs out, unless a number was given."""

    def __init__(self, accelerator: Accelerator, config: TrainConfig, device: torch.device) -> None:
        self.accelerator, self.device, self.given = accelerator, device, config.accumulation is not None
        self.most = -(-config.batch_size // accelerator.num_processes)

    def fitting(self, parts: int, compute: Callable[[int], T]) -> tuple[T, int]:
        """Return what `compute` makes of a batch in parts, and in how many. Raises RoomError where one row is too much.

        Every process tries as many: `compute` must not wait for the others.
        """
        while True:
            results = attempted(compute, parts)
            if self.well(bool(results)):
                return results[0], parts
            if self.given or parts >= self.most:
                raise RoomError(self.told(parts))
            clear_device_cache(garbage_collection=True)
            parts = min(2 * parts, self.most)

    def well(self, fits: bool) -> bool:
        """Tell whether all processes had room."""
        if self.accelerator.num_processes == 1:
            return fits
        flag = torch.tensor(float(fits), device=self.device)
        return float(self.accelerator.reduce(flag, "mean")) == 1  # pyright: ignore[reportArgumentType]

    def told(self, parts: int) -> str:
        rows = -(-self.most // parts)
        what = "one state" if rows == 1 else f"{rows} states"
        advice = f"leave accumulation out, or give {2 * parts} or more" if rows > 1 else LESS
        return (
            f"out of memory for {what} at once on {self.device}; {advice}, and run again: what is recorded and the "
            "last checkpoint are kept"
        )


def attempted(compute: Callable[[int], T], parts: int) -> list[T]:
    """Return what `compute` makes, or nothing where memory ran out; here, so that no traceback keeps tensors alive."""
    try:
        return [compute(parts)]
    except (RuntimeError, MemoryError) as error:
        if not is_of_memory(error):
            raise
    return []
