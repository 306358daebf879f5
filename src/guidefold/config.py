"""Every setting of guidefold: an option of the command line, a key of a TOML file and a Python argument are one field.

No torch here, so that `guidefold --help` answers at once.
"""

import dataclasses
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from guidefold.errors import InputError

Design = Literal["low_rank", "bottleneck", "cross_attention", "offset"]
Source = Literal["recorded", "online"]


def setting(default: Any, text: str) -> Any:
    """Return a dataclass field that carries its own help text."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A group of settings that checks itself when it is made."""

    def __post_init__(self) -> None:
        for item in fields(self):
            check(item.name, getattr(self, item.name), typing.get_type_hints(type(self))[item.name])

    @classmethod
    def from_toml(cls, path: str | Path, **overrides: Any) -> Self:
        """Read settings from a TOML file; `overrides` win. Raises InputError for unknown keys and bad values."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"cannot read settings from {path}: {error}") from error
        return cls.from_dict({**values, **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values. Raises InputError for unknown keys and bad values."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise InputError(f"unknown setting {unknown[0]!r} for {cls.__name__}; choose from {', '.join(sorted(known))}")
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_toml(self) -> str:
        """Return TOML that `from_toml` reads back as an equal object."""
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.to_dict().items() if value is not None)


def check(name: str, value: Any, hint: Any) -> None:
    """Raise InputError unless `value` is of the annotated type and, if a number, finite and not negative."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return
        return check(name, value, next(option for option in options if option is not type(None)))
    if origin is Literal:
        if value not in options:
            raise InputError(f"{name} is {value!r}; choose from {', '.join(map(str, options))}")
    elif origin is tuple:
        for item in value:
            check(name, item, options[0])
    elif hint is bool:
        if not isinstance(value, bool):
            raise InputError(f"{name} is {value!r}; give true or false")
    elif hint in (int, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (hint is int and value != int(value)):
            raise InputError(f"{name} is {value!r}; give {'a whole number' if hint is int else 'a number'}")
        if not math.isfinite(value) or value < 0:
            raise InputError(f"{name} is {value}; give a finite number that is not negative")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(Config):
    """The shape of an adapter."""

    design: Design = setting("low_rank", "how a target is changed")
    rank: int = setting(8, "inner width at each target")
    width: int = setting(256, "width of the shared condition encoder")
    target_modules: tuple[str, ...] | None = setting(None, "names, suffixes or one regex; default: found by structure")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1 or self.width < 1:
            raise InputError(f"rank is {self.rank} and width is {self.width}; both must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(Config):
    """The guided trajectories an adapter learns from, each a pure function of (seed, its number)."""

    trajectories: int = setting(512, "guided trajectories to record")
    sampling_steps: int = setting(20, "denoising steps of a trajectory")
    keep: int = setting(8, "steps kept of each trajectory, spread evenly with a random offset")
    scale_min: float = setting(1.5, "lowest guidance scale drawn")
    scale_max: float = setting(9.0, "highest guidance scale drawn")
    record_batch: int = setting(16, "trajectories sampled together")
    shard: int = setting(64, "trajectories per file")
    seed: int = setting(0, "seed of conditions, scales and noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trajectories", "sampling_steps", "keep", "record_batch", "shard"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.keep > self.sampling_steps:
            raise InputError(f"keep is {self.keep} of {self.sampling_steps} sampling_steps; keep at most all of them")
        if not 1 < self.scale_min <= self.scale_max:
            raise InputError(f"guidance scales from {self.scale_min} to {self.scale_max}; give 1 < scale_min <= scale_max")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How an adapter is trained."""

    source: Source = setting("recorded", "states from a store, or made on the fly without disk")
    steps: int = setting(2000, "optimizer steps")
    batch_size: int = setting(64, "states per optimizer step")
    accumulation: int = setting(1, "parts that a batch is computed in")
    learning_rate: float = setting(2e-3, "peak learning rate")
    warmup: float = setting(0.1, "part of the steps spent warming up")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    ema_decay: float = setting(0.995, "decay of the averaged weights")
    max_grad_norm: float = setting(1.0, "gradient norm to clip at")
    mixed_precision: Literal["no", "fp16", "bf16"] = setting("no", "precision of the forward pass")
    gradient_checkpointing: bool = setting(False, "trade time for memory")
    validation: int = setting(16, "held-out trajectories to validate on")
    validate_every: int = setting(250, "steps between validations")
    checkpoint_every: int = setting(250, "steps between checkpoints")
    refresh_every: int = setting(32, "online source: steps between fresh sets of trajectories")
    tracker: str | None = setting(None, "an accelerate tracker: tensorboard or wandb")
    seed: int = setting(0, "seed of initialisation and data order")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "batch_size", "accumulation", "validate_every", "checkpoint_every", "refresh_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give at least 1")
        if self.batch_size % self.accumulation:
            raise InputError(f"batch_size {self.batch_size} cannot be split in {self.accumulation} equal parts")


@dataclass(frozen=True, kw_only=True)
class EvalConfig(Config):
    """How teacher, bare model and student are compared."""

    scales: tuple[float, ...] = setting((2.0, 4.0, 6.0, 8.0), "guidance scales to judge at")
    images: int = setting(256, "images per scale and variant")
    sampling_steps: int = setting(20, "denoising steps")
    eval_batch: int = setting(32, "images sampled together")
    bootstrap: int = setting(200, "resamples for the intervals; 0 for none")
    seed: int = setting(1_000_000, "seed of the noise, away from training's")
