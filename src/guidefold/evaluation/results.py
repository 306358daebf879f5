"""What an evaluation found, as plain numbers that travel as JSON; no torch here, so that reports open at once."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, Self, TypeVar, get_args

from guidefold.errors import InputError
from guidefold.files import read_object, replace_text, sealed, unsealed

T = TypeVar("T")
Variant = Literal["none", "cfg", "adapter"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
LARGEST = 1e100  # of a number that can be drawn
NEEDED = ("guidance_scale", "passes", "seconds_per_image")  # what every row has


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval; low = value = high where no interval was asked for."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _check_numbers(vars(self))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant at one guidance scale; None is a metric that was not measured or means nothing here."""

    guidance_scale: float
    variant: Variant
    passes: float  # denoiser rows per image and step
    seconds_per_image: float
    peak_memory_mb: float | None = None
    frechet: Interval | None = None
    kernel_distance: float | None = None
    precision: float | None = None
    recall: float | None = None
    clip_score: Interval | None = None
    clip_difference: Interval | None = None  # from the clip_score of cfg, image by image
    psnr: float | None = None  # dB; this and the two below compare with cfg's image, or frames, of the same noise
    ssim: float | None = None
    feature_distance: float | None = None
    latent_distance: float | None = None  # of the last latents from cfg's, as a share of no guidance's
    spectral_distance: float | None = None  # dB; of sounds from cfg's
    motion: float | None = None  # of films: mean difference from frame to frame, 0..1

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InputError(f"variant is {self.variant!r}; choose from {', '.join(VARIANTS)}")
        numbers = {name: value for name, value in vars(self).items() if name != "variant"}
        _check_numbers({name: value for name, value in numbers.items() if name in NEEDED or value is not None})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values. Raises InputError for unknown, missing and bad keys."""
        known = _mapping(cls, values)
        for key in ("frechet", "clip_score", "clip_difference"):
            if known.get(key) is not None:
                known[key] = _build(Interval, known[key])
        return _build(cls, known)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Three variants compared from the same noise.

    Keys of the `recovered_*` dictionaries are numbers as text: a guidance scale ("4.0") for `recovered_by_scale` and
    `recovered_on_own_states`, a timestep of 0 to 1000 ("475") for `recovered_by_timestep`. The first two are
    measured on states of the teacher's trajectories, `recovered_on_own_states` on states that sampling with the adapter
    reaches.
    """

    rows: list[Row]
    recovered_by_scale: dict[str, float]
    recovered_by_timestep: dict[str, float]
    recovered_on_own_states: dict[str, float]
    prompts: list[str]
    sampling_steps: int
    device: str
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("recovered_by_scale", "recovered_by_timestep", "recovered_on_own_states"):
            _check_recovered(name, getattr(self, name))
        if not isinstance(self.prompts, (list, tuple)) or not all(isinstance(one, str) for one in self.prompts):
            raise InputError(f"prompts is {self.prompts!r}; give a list of texts")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values. Raises InputError for unknown, missing and bad keys."""
        rows = _mapping(cls, values).get("rows", [])
        if not isinstance(rows, list):
            raise InputError(f"rows is {rows!r}; give a list")
        return _build(cls, {**values, "rows": [Row.from_dict(row) for row in rows]})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, path: str | Path) -> Path:
        """Write JSON, whole or not at all. Raises InputError if a number is not finite."""
        try:
            text = json.dumps(sealed(self.to_dict()), indent=2, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise InputError(f"cannot save an evaluation to {path}: {error}; leave the metric out instead") from error
        return replace_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises InputError if the file is missing, damaged or no evaluation."""
        values = read_object(path, "an evaluation")
        try:
            values = unsealed(values, "it")
            _check_drawable(values)
            return cls.from_dict(values)
        except InputError as error:
            raise InputError(f"cannot read an evaluation from {path}: {error}; run eval again") from error

    def of(self, variant: Variant) -> list[Row]:
        """Return a variant's rows, lowest guidance scale first."""
        return sorted((row for row in self.rows if row.variant == variant), key=lambda row: row.guidance_scale)

    def typical(self, variant: Variant, metric: str) -> float | None:
        """Return the median over guidance scales, which a slow first scale cannot bend; None if never measured."""
        return median(numbers) if (numbers := self._numbers(variant, metric)) else None

    def mean(self, variant: Variant, metric: str) -> float | None:
        """Return the mean over guidance scales; None if never measured."""
        return fmean(numbers) if (numbers := self._numbers(variant, metric)) else None

    def _numbers(self, variant: Variant, metric: str) -> list[float]:
        found = [getattr(row, metric) for row in self.of(variant)]
        return [item.value if isinstance(item, Interval) else item for item in found if item is not None]


def _mapping(kind: type, values: Any) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise InputError(f"{values!r} is no {kind.__name__}; give an object")
    return dict(values)


def _check_numbers(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, Interval)):
            raise InputError(f"{name} is {value!r}; give a number")


def _check_drawable(value: Any, name: str = "a value") -> None:
    """Raise InputError for a number, wherever it is, that no figure could show."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            _check_drawable(one, key)
    elif isinstance(value, list):
        for one in value:
            _check_drawable(one, name)
    elif isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:  # nan is neither
        raise InputError(f"{name} is {'no finite number' if isinstance(value, float) else 'too large a number'}")


def _check_recovered(name: str, values: Any) -> None:
    try:
        known = _mapping(Evaluation, values)
        if any(not math.isfinite(float(key)) for key in known):
            raise InputError("a scale or timestep is not finite")
        _check_numbers({f"{name} at {float(key):g}": value for key, value in known.items()})
    except ValueError as error:  # an InputError is one too
        raise InputError(f"{name} is {values!r}; give numbers by guidance scale or timestep") from error


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    values = _mapping(kind, values)
    if unknown := sorted(values.keys() - {item.name for item in fields(kind)}):  # type: ignore[arg-type]
        raise InputError(f"unknown key {unknown[0]!r} for {kind.__name__}; was it saved by another version?")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"incomplete {kind.__name__}: {error}") from error
