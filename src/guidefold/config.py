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
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self

from guidefold.errors import InputError

Design = Literal["film", "cross_attention", "offset", "lora"]
Source = Literal["recorded", "online"]
Tracker = Literal["tensorboard", "wandb"]

LARGEST = 2**63
MANY = 10_000_000  # trajectories or images: a hundred times what anybody needs, and still counted in seconds


def setting(default: Any, text: str, *, again: bool = False) -> Any:
    """Return a dataclass field that carries its own help text; `again` takes one value at a time on a command line."""
    return field(default=default, metadata={"help": text, "again": again})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A group of settings that checks itself when it is made."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for item in fields(self):
            object.__setattr__(self, item.name, checked(item.name, getattr(self, item.name), hints[item.name]))

    def within(self, names: str, low: float, high: float = math.inf, *, above: bool = False) -> None:
        """Raise InputError unless the named settings are from `low` (or above it) to `high`."""
        for name in names.split():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if not low <= value <= high or (above and value == low):
                    least = f"more than {low:g}" if above else f"at least {low:g}"
                    most = "" if high == math.inf else f" and at most {high:,}"
                    raise InputError(f"{name} is {value}; give {least}{most}")

    @classmethod
    def from_toml(cls, path: str | Path, **overrides: Any) -> Self:
        """Read settings from a TOML file; `overrides` win. Raises InputError for unknown keys and bad values."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"cannot read settings from {path}: {error}") from error
        return cls.from_dict({**values, **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from plain values. Raises InputError for unknown keys and bad values."""
        known = {item.name for item in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise InputError(
                f"unknown setting {unknown[0]!r} for {cls.__name__}; choose from {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_toml(self) -> str:
        """Return TOML that `from_toml` reads back as an equal object."""
        return "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.to_dict().items() if value is not None)


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the annotated type; raises InputError unless it is that, finite and not negative."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        return checked(name, value, next(option for option in options if option is not type(None)))
    if origin is tuple:
        return checked_items(name, value, options[0])
    if hint in (int, float):
        return checked_number(name, value, hint)
    if origin is Literal and value not in options:
        raise InputError(f"{name} is {value!r}; choose from {', '.join(map(str, options))}")
    if hint is bool and not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; give true or false")
    if hint is str and not isinstance(value, str):
        raise InputError(f"{name} is {value!r}; give a text")
    if isinstance(value, str) and value != value.encode("utf-8", "ignore").decode("utf-8"):
        raise InputError(f"{name} is {value!r}, which holds half a character; write it whole, in UTF-8")
    return value


def checked_items(name: str, value: Any, hint: Any) -> tuple[Any, ...]:
    """Return a tuple of the annotated type; one text alone is a tuple of it, as in PEFT."""
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, (tuple, list)) or not items:
        raise InputError(f"{name} is {value!r}; give a list of at least one")
    return tuple(checked(name, item, hint) for item in items)


def checked_number(name: str, value: Any, kind: type[int] | type[float]) -> float:
    """Return a whole number or a float. Raises InputError unless it is finite, not negative and of 64 bits."""
    wanted = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float, Integral)):
        raise InputError(f"{name} is {value!r}; give {wanted}")
    value = value if isinstance(value, float) else int(value)
    if not 0 <= value < (LARGEST if kind is int else math.inf):  # nan is neither
        raise InputError(f"{name} is {value}; give a finite number that is not negative")
    if kind is int and value != int(value):
        raise InputError(f"{name} is {value}; give {wanted}")
    return kind(value)


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(Config):
    """The shape of an adapter."""

    design: Design = setting("film", "how a target is changed")
    rank: int | None = setting(None, "inner width at each target; film: of deltas of the weights; default 32, film 0")
    width: int = setting(256, "width of the shared condition encoder")
    squeeze: int = setting(32, "film: width of the code that norms and modulations read")
    see_condition: bool = setting(True, "see the prompt or class too, besides guidance scale and timestep")
    target_modules: tuple[str, ...] | None = setting(None, "names, suffixes or one regex; default: found by structure")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank is None:
            object.__setattr__(self, "rank", 0 if self.design == "film" else 32)
        self.within("rank", 0 if self.design == "film" else 1)
        self.within("width squeeze", 1)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Config):
    """Which version of the model is meant, and what is put on it before it teaches or samples."""

    revision: str | None = setting(None, "branch, tag or commit of the model on the Hub")
    variant: str | None = setting(None, "kind of its weight files, such as fp16")
    lora: tuple[str, ...] | None = setting(
        None, "LoRA to merge into the model: PATH or PATH:scale; may be given again for others", again=True
    )
    controlnet: str | None = setting(None, "folder or Hub name of a ControlNet; its picture is --call image=@FILE")


@dataclass(frozen=True, kw_only=True)
class HoldingConfig(Config):
    """How a model's weights are held while it works."""

    offload: Literal["model", "group"] | None = setting(
        None, "keep weights on the CPU until a whole model, or a group of its layers, runs; default: all on the device"
    )
    quantize: Literal["nf4", "int8"] | None = setting(
        None, "pack the denoiser's weights with bitsandbytes, on a GPU; default: not"
    )
    checkpoint: str | None = setting(
        None, "one .safetensors or .gguf file with the denoiser's weights; the rest comes from the model"
    )


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(Config):
    """The guided trajectories an adapter learns from, each a pure function of (seed, its number)."""

    trajectories: int = setting(512, "guided trajectories to record")
    sampling_steps: int = setting(20, "denoising steps of a trajectory")
    keep: int = setting(8, "steps kept of each trajectory, spread evenly with a random offset")
    scale_min: float = setting(1.5, "lowest guidance scale drawn")
    scale_max: float = setting(9.0, "highest guidance scale drawn")
    dials: tuple[str, ...] | None = setting(None, "ranges of further scales, such as image_guidance_scale=1:2")
    negatives: tuple[str, ...] | None = setting(
        None, "negative prompts to draw from, besides none, for every second one"
    )
    denoiser: str | None = setting(None, "component to learn, where guidance runs several")
    follow: str | None = setting(None, "adapter whose own sampling to follow; default: the teacher's guided sampling")
    record_batch: int = setting(16, "trajectories sampled together")
    shard: int = setting(64, "trajectories per file")
    seed: int = setting(0, "seed of conditions, scales and noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("trajectories", 1, MANY)
        self.within("sampling_steps keep record_batch shard", 1)
        if self.keep > self.sampling_steps:
            raise InputError(f"keep is {self.keep} of {self.sampling_steps} sampling_steps; keep at most all of them")
        self.dial_ranges()
        if not 1 < self.scale_min <= self.scale_max:
            raise InputError(
                f"guidance scales from {self.scale_min} to {self.scale_max}; give 1 < scale_min <= scale_max"
            )

    def dial_ranges(self) -> dict[str, tuple[float, float]]:
        """Return lowest and highest value of the further guidance scales by name. Raises InputError for bad ones."""
        found = {}
        for text in self.dials or ():
            name, _, values = text.partition("=")
            low, _, high = values.partition(":")
            try:
                found[name] = float(low), float(high or low)
            except ValueError as error:
                raise InputError(f"dials has {text!r}; write name=low:high") from error
            if not (name and math.isfinite(sum(found[name])) and found[name][0] <= found[name][1]):
                raise InputError(f"dials has {text!r}; write name=low:high, with low not above high")
        return found


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """How an adapter is trained."""

    source: Source = setting("recorded", "states from a store, or made on the fly without disk")
    steps: int = setting(2000, "optimizer steps")
    batch_size: int = setting(64, "states per optimizer step")
    accumulation: int | None = setting(None, "parts that a batch is computed in; default: as few as fit, by trying")
    learning_rate: float = setting(2e-3, "peak learning rate")
    warmup: float = setting(0.1, "part of the steps spent warming up")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    ema_decay: float = setting(0.995, "decay of the averaged weights")
    max_grad_norm: float = setting(1.0, "gradient norm to clip at")
    mixed_precision: Literal["no", "fp16", "bf16"] | None = setting(
        None, "precision of the forward pass; default: bf16 on GPUs that have it, else no"
    )
    gradient_checkpointing: bool | None = setting(
        None, "trade time for memory; default: on GPUs, where the model has it"
    )
    compile: bool = setting(False, "compile the model's repeated blocks: minutes once, then faster steps")
    validation: int = setting(16, "held-out trajectories to validate on")
    validate_every: int = setting(250, "steps between validations")
    checkpoint_every: int = setting(250, "steps between checkpoints")
    refresh_every: int = setting(32, "online source: steps between fresh sets of trajectories")
    tracker: Tracker | None = setting(None, "where to log, besides log.jsonl")
    init: str | None = setting(None, "adapter to start from: a folder, a hub name or bundled; default: from scratch")
    seed: int = setting(0, "seed of initialisation and data order")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("steps batch_size validate_every checkpoint_every refresh_every", 1)
        self.within("accumulation" if self.accumulation is not None else "", 1)
        self.within("learning_rate max_grad_norm", 0, above=True)
        self.within("warmup", 0, 1)
        if self.ema_decay >= 1:
            raise InputError(f"ema_decay is {self.ema_decay}; give less than 1, or nothing would be learnt")
        if self.accumulation is not None and self.batch_size % self.accumulation:
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.within("scales", 1, above=True)  # at 1 there is no guidance to judge
        if repeats := sorted({scale for scale in self.scales if self.scales.count(scale) > 1}):
            raise InputError(f"scales has {repeats[0]:g} more than once; give each scale once")
        self.within("sampling_steps eval_batch", 1)
        self.within("images", 4, MANY)  # precision and recall look at three neighbours of each
