"""What trajectory i is made from: prompt, guidance scale, noise and kept steps, each a pure function of (seed, i).

Everything is drawn by hashing, not by a random number generator: the same on every machine, python and torch, and for
any number of processes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from guidefold.config import TrajectoryConfig
from guidefold.errors import InputError
from guidefold.trajectories.prompts import read_conditions as read_conditions

BITS = 63


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one trajectory is made from."""

    index: int
    prompt: str
    guidance_scale: float
    seed: int
    negative: str = ""
    dials: dict[str, float] = field(default_factory=dict)

    @property
    def condition(self) -> int:
        """The number of `prompt`, the same in every list of prompts."""
        return digest(self.prompt)


def hashed(seed: int, purpose: str, *numbers: int) -> int:
    """Return a number uniform in [0, 2**63) that depends on the arguments only."""
    return digest("/".join([purpose, *(str(int(number)) for number in (seed, *numbers))]))


def digest(text: str) -> int:
    """Return the first 63 bits of a text's sha256: a number that fits in a signed 64-bit integer."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - BITS)


@lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    """Return the numbers below `count` in the order of an epoch."""
    return tuple(sorted(range(count), key=lambda number: hashed(seed, "order", epoch, number)))


def draw(config: TrajectoryConfig, conditions: Sequence[str], index: int) -> Draw:
    """Return what trajectory `index` is made from.

    Conditions come in shuffled epochs (each once before any comes twice), scales uniformly from
    [scale_min, scale_max]; where there are negative prompts, every second one is empty on average. Raises InputError
    if there are no conditions.
    """
    if not conditions:
        raise InputError("there are no conditions to draw from; give at least one prompt")
    epoch, position = divmod(index, len(conditions))
    return Draw(
        index=index,
        prompt=conditions[shuffled(config.seed, epoch, len(conditions))[position]],
        guidance_scale=uniform(config, "scale", index, config.scale_min, config.scale_max),
        seed=hashed(config.seed, "noise", index),
        negative=negative_prompt(config, index),
        dials={name: uniform(config, f"dial {name}", index, *ends) for name, ends in config.dial_ranges().items()},
    )


def contrasting(config: TrajectoryConfig, conditions: Sequence[str]) -> list[Draw]:
    """Return two draws, of which the second has the larger value of every scale that trajectories differ in.

    Raises InputError if there are no conditions.
    """
    first, ranges = draw(config, conditions, 0), config.dial_ranges().items()
    first = replace(first, dials={name: (low + high) / 2 for name, (low, high) in ranges})
    # far apart, because close to pure noise guidance is a small part of a prediction
    scale, highest = 2 * first.guidance_scale + 1, {name: high for name, (_, high) in ranges}
    return [first, replace(first, guidance_scale=scale, seed=first.seed + 1, dials=highest)]


def uniform(config: TrajectoryConfig, purpose: str, index: int, low: float, high: float) -> float:
    """Return a number of trajectory `index`, uniform in [low, high]."""
    part = hashed(config.seed, purpose, index) / 2**BITS
    return min(low + part * (high - low), high)  # rounding may step over the end


def negative_prompt(config: TrajectoryConfig, index: int) -> str:
    """Return the negative prompt of trajectory `index`."""
    negatives = config.negatives
    if negatives is None or hashed(config.seed, "has negative", index) % 2:
        return ""
    return negatives[hashed(config.seed, "negative", index) % len(negatives)]


def kept_steps(config: TrajectoryConfig, index: int, visits: int | None = None) -> list[int]:
    """Return which of a trajectory's `visits` are kept, ascending: one from each of `keep` equal strata, or all.

    A visit is a call of the denoiser: one a step, which is what None means, but for schedulers that need more. All
    strata share one random offset, so visits are spread evenly and each is kept with probability keep / visits. Whole
    numbers only: with floats an offset close to 1 could round into the next stratum.
    """
    visits = config.sampling_steps if visits is None else visits
    offset, one, keep = hashed(config.seed, "steps", index), 2**BITS, min(config.keep, visits)
    return [(k * one + offset) * visits // (keep * one) for k in range(keep)]
