"""Which of several processes this is, as `torchrun` and `accelerate launch` say, before any of them talk."""

import os


def place() -> tuple[int, int]:
    """Return this process's number and how many there are: 0 of 1 unless launched as several."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def own_gpu() -> str:
    """Return the GPU of this process: each of several has its own."""
    return "cuda" if place()[1] == 1 else f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
