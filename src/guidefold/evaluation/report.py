"""An evaluation as one HTML file that needs nothing else: pictures and figures are inside, nothing is fetched."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from guidefold.errors import InputError
from guidefold.evaluation import figures
from guidefold.evaluation.results import VARIANTS, Evaluation, Interval, Row
from guidefold.files import check_plain, exists, replace_text

LARGEST_SIDE = 384  # pixels of a picture in the report; larger ones are scaled down
LARGEST_STRIP = 1120  # of a strip's width, which has a line for itself
FURTHER = {
    "latent_distance": "Latents' distance ↓",
    "spectral_distance": "Spectral distance (dB) ↓",
    "motion": "Motion",
}
MARK = b'<meta name="generator" content="guidefold">'  # in the head of every report
LOSSLESS_SIDE = 128  # pixels up to which a picture is kept as it is, as PNG


def is_wide(image: Image.Image) -> bool:
    """Tell a strip from a picture."""
    return image.width > 2 * image.height


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One prompt sampled from one noise, an image per variant: "none", "cfg", "adapter"."""

    prompt: str
    guidance_scale: float
    images: dict[str, Image.Image]

    @property
    def wide(self) -> bool:
        """Whether they are strips of films or waves of sounds, which want a line each."""
        return any(is_wide(image) for image in self.images.values())

    def __post_init__(self) -> None:
        if unknown := sorted(self.images.keys() - set(VARIANTS)):
            raise InputError(f"no variant {unknown[0]!r} of a picture; choose from {', '.join(VARIANTS)}")


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One number at the top of a report, as text, and what it means."""

    value: str
    label: str
    detail: str


def check_report(path: Path) -> None:
    """Raise InputError where a report would be written over anything but a report."""
    check_plain(path)
    if exists(path):
        try:
            with path.open("rb") as file:
                ours = MARK in file.read(1000)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; give another name") from error
        if not ours:
            raise InputError(f"{path} is no report of guidefold and is not written over; give another name")


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluation: Evaluation | None,
    pictures: Sequence[PictureRow],
    loss_log: Sequence[Mapping[str, Any]],
    command: str | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file, whole or not at all, and return its path; what is absent is left out.

    Raises InputError where it cannot be written, or something else than a report is there.
    """
    check_report(Path(path))
    folder = resources.files("guidefold.evaluation")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=_number, interval=_interval, data_uri=_data_uri)
    text = environment.from_string(folder.joinpath("report.html.j2").read_text(encoding="utf-8")).render(
        title=title,
        labels=figures.LABELS,
        evaluation=evaluation,
        headlines=_headlines(evaluation) if evaluation else [],
        rows=_ordered(evaluation) if evaluation else [],
        further=_further(evaluation) if evaluation else {},
        pictures=pictures,
        figures=[Markup(figure) for figure in _figures(evaluation, loss_log)],  # our own SVG, without users' text
        command=command,
        notes=notes,
    )
    return replace_text(path, text)


def _headlines(evaluation: Evaluation) -> list[Headline]:
    found = [_passes(evaluation), _time(evaluation), _recovered(evaluation)]
    found += [
        _three(evaluation, "clip_score", "CLIP score", "higher is better"),
        _three(evaluation, "frechet", "Fréchet distance", "lower is better"),
    ]
    return [headline for headline in found if headline]


def _passes(evaluation: Evaluation) -> Headline | None:
    teacher, student = (evaluation.typical(variant, "passes") for variant in ("cfg", "adapter"))
    if teacher is None or student is None:
        return None
    return Headline(
        value=f"{teacher:.3g} → {student:.3g}",
        label="forward passes per step",
        detail="CFG → adapter, for each image",
    )


def _time(evaluation: Evaluation) -> Headline | None:
    teacher, student = (evaluation.typical(variant, "seconds_per_image") for variant in ("cfg", "adapter"))
    if not teacher or not student:
        return None
    detail = f"{teacher:.3g} s → {student:.3g} s per image on {evaluation.device}"
    return Headline(value=f"{teacher / student:.2f}\N{MULTIPLICATION SIGN}", label="the speed of CFG", detail=detail)


def _recovered(evaluation: Evaluation) -> Headline | None:
    if not evaluation.recovered_by_scale:
        return None
    detail = "mean over guidance scales, on the teacher's states"
    if own := evaluation.recovered_on_own_states:
        detail += f"; {fmean(own.values()):.1%} on the adapter's own"
    return Headline(
        value=f"{fmean(evaluation.recovered_by_scale.values()):.1%}", label="guidance recovered", detail=detail
    )


def _three(evaluation: Evaluation, metric: str, name: str, direction: str) -> Headline | None:
    means = {variant: evaluation.mean(variant, metric) for variant in VARIANTS}
    adapter = means["adapter"]
    if adapter is None:
        return None
    others = ", ".join(
        f"{figures.LABELS[variant]} {_number(mean)}"
        for variant in ("cfg", "none")
        if (mean := means[variant]) is not None
    )
    detail = f"{others}; {direction}, mean over guidance scales" if others else direction
    return Headline(value=_number(adapter), label=name, detail=detail)


def _further(evaluation: Evaluation) -> dict[str, str]:
    """Return the columns that only some evaluations have, with their labels."""
    measured = [name for name in FURTHER if any(getattr(row, name) is not None for row in evaluation.rows)]
    return {name: FURTHER[name] for name in measured}


def _ordered(evaluation: Evaluation) -> list[Row]:
    return sorted(evaluation.rows, key=lambda row: (row.guidance_scale, VARIANTS.index(row.variant)))


def _figures(evaluation: Evaluation | None, loss_log: Sequence[Mapping[str, Any]]) -> list[str]:
    drawn: list[str] = []
    if evaluation:
        for metric in ("frechet", "clip_score"):
            if any(getattr(row, metric) for row in evaluation.rows):
                drawn.append(figures.metric_curve(evaluation, metric))
        if evaluation.recovered_by_scale:
            drawn.append(figures.metric_curve(evaluation, "guidance_recovered"))
        if evaluation.recovered_by_timestep:
            drawn.append(figures.timestep_curve(evaluation))
        if evaluation.rows:
            drawn.append(figures.cost_bars(evaluation))
    if loss_log:
        drawn.append(figures.loss_curve(loss_log))
    return drawn


def _number(value: float | None) -> str:
    """Return a number with as many digits as a reader can use, a dash for what was not measured."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:.2f}" if abs(value) >= 1 else f"{value:#.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _interval(value: Interval | None) -> str:
    if value is None or value.low == value.high:
        return _number(value.value if value else None)
    return f"{_number(value.value)} [{_number(value.low)}, {_number(value.high)}]"


def _data_uri(image: Image.Image) -> str:
    """Return the picture as a data URI: PNG if small, else scaled to fit and JPEG."""
    image = image.convert("RGB")
    file = io.BytesIO()
    if max(image.size) <= LOSSLESS_SIDE:
        kind = "png"
        image.save(file, "PNG", optimize=True)
    else:
        kind = "jpeg"
        width = LARGEST_STRIP if is_wide(image) else LARGEST_SIDE
        image.thumbnail((width, LARGEST_SIDE), Image.Resampling.LANCZOS)
        image.save(file, "JPEG", quality=92, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
