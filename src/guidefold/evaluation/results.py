"""What an evaluation found, as plain numbers that travel as JSON; no torch here, so that reports open at once."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, Self, TypeVar, get_args

from guidefold.errors import InputError

T = TypeVar("T")
Variant = Literal["none", "cfg", "adapter"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval; low = value = high where no interval was asked for."""

    value: float
    low: float
    high: float


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
    psnr: float | None = None  # dB; this and the two below compare with the cfg image of the same noise
    ssim: float | None = None
    feature_distance: float | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InputError(f"variant is {self.variant!r}; choose from {', '.join(VARIANTS)}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values. Raises InputError for unknown, missing and bad keys."""
        known = dict(values)
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
    `recovered_on_own_states`, a timestep ("475") for `recovered_by_timestep`. The first two are measured on states of
    the teacher's trajectories, `recovered_on_own_states` on states that sampling with the adapter reaches.
    """

    rows: list[Row]
    recovered_by_scale: dict[str, float]
    recovered_by_timestep: dict[str, float]
    recovered_on_own_states: dict[str, float]
    prompts: list[str]
    sampling_steps: int
    device: str
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values. Raises InputError for unknown, missing and bad keys."""
        return _build(cls, {**values, "rows": [Row.from_dict(row) for row in values.get("rows", [])]})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, path: str | Path) -> Path:
        """Write JSON, whole or not at all. Raises InputError if a number is not finite."""
        try:
            text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise InputError(f"cannot save an evaluation to {path}: {error}; leave the metric out instead") from error
        return replace_text(path, text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote. Raises InputError if the file is missing or is no evaluation."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read an evaluation from {path}: {error}") from error
        if not isinstance(values, dict):
            raise InputError(f"cannot read an evaluation from {path}: it holds no JSON object")
        return cls.from_dict(values)

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


def replace_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all, making its folder; a reader sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)  # os.replace
    finally:
        draft.unlink(missing_ok=True)
    return path


def _build(kind: type[T], values: Mapping[str, Any]) -> T:
    if unknown := sorted(values.keys() - {item.name for item in fields(kind)}):  # type: ignore[arg-type]
        raise InputError(f"unknown key {unknown[0]!r} for {kind.__name__}; was it saved by another version?")
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"incomplete {kind.__name__}: {error}") from error
