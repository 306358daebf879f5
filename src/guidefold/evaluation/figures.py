"""Figures of an evaluation as SVG text, which takes its text colour from the page around it."""

import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, get_args

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from guidefold.evaluation.results import VARIANTS, Evaluation, Interval, Variant

Metric = Literal["frechet", "clip_score", "guidance_recovered"]

LABELS: dict[Variant, str] = {"none": "No guidance", "cfg": "CFG", "adapter": "Adapter"}
# Readable on white and on near-black; marker and dash tell the lines apart without colour.
COLOURS: dict[Variant, str] = {"none": "#8a9099", "cfg": "#3d85d9", "adapter": "#e0702a"}
FORMATS: dict[Variant, str] = {"none": "s:", "cfg": "o--", "adapter": "^-"}
TITLES: dict[Metric, str] = {
    "frechet": "Fréchet distance (lower is better)",
    "clip_score": "CLIP score (higher is better)",
    "guidance_recovered": "Guidance recovered (1 is CFG)",
}
INK = "#010203"  # stands for the page's text colour until the SVG is written
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # real text: smaller, selectable, and CSS may set its font
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
LOSS_POINTS = 300  # of a loss curve; longer logs are averaged in bins


def metric_curve(evaluation: Evaluation, metric: Metric) -> str:
    """Return one metric against guidance scale as SVG, a line per variant with its 95 % band."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        _draw_metric(figure.subplots(), evaluation, metric)
        return _svg(figure, TITLES[metric] + " against guidance scale")


def metric_curves(evaluation: Evaluation) -> str:
    """Return Fréchet distance, CLIP score and guidance recovered against guidance scale, side by side as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.1), layout="constrained")
        for axes, metric in zip(figure.subplots(1, 3), get_args(Metric), strict=True):
            _draw_metric(axes, evaluation, metric)
        return _svg(figure, "Fréchet distance, CLIP score and guidance recovered against guidance scale")


def timestep_curve(evaluation: Evaluation) -> str:
    """Return guidance recovered against timestep as SVG; noise is on the right, as timesteps count."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        axes = figure.subplots()
        _draw_recovered(axes, evaluation.recovered_by_timestep)
        axes.set(title="Guidance recovered by timestep", xlabel="timestep (more noise to the right)")
        return _svg(figure, "Guidance recovered against timestep")


def loss_curve(log_rows: Sequence[Mapping[str, Any]]) -> str:
    """Return training loss, and validation where logged, against step as SVG; rows have step and loss or validation.

    The loss is the share of guidance that is missed, every state alike, and validation the share of all guidance energy
    that is recovered on held-out trajectories: it is drawn as what it misses, so that both fall. A log longer than 300
    rows is averaged in bins.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        axes = figure.subplots()
        steps, losses = _binned(_column(log_rows, "loss"))
        axes.plot(steps, losses, color=COLOURS["cfg"], linewidth=1, label="training")
        steps, recovered = _binned(_column(log_rows, "validation"))
        validations = [1 - share for share in recovered]
        if steps:
            axes.plot(steps, validations, color=COLOURS["adapter"], marker="o", label="validation, by energy")
            axes.legend()
        if min(losses + validations, default=0) > 0:
            axes.set_yscale("log")
        axes.set(title="Guidance missed", xlabel="optimizer step")
        return _svg(figure, "Training loss against step")


def cost_bars(evaluation: Evaluation) -> str:
    """Return forward passes and seconds per image of each variant as SVG bars, medians over guidance scales."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.1), layout="constrained")
        above, below = figure.subplots(2, 1)
        _draw_bars(above, evaluation, "passes", "Forward passes per image and step")
        _draw_bars(below, evaluation, "seconds_per_image", "Seconds per image")
        return _svg(figure, "Forward passes and seconds per image of each variant")


def _draw_metric(axes: Axes, evaluation: Evaluation, metric: Metric) -> None:
    if metric == "guidance_recovered":
        _draw_recovered(axes, evaluation.recovered_by_scale, evaluation.recovered_on_own_states)
    else:
        for variant in VARIANTS:
            _draw_variant(axes, evaluation, variant, metric)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    axes.set(title=TITLES[metric], xlabel="guidance scale")


def _draw_variant(axes: Axes, evaluation: Evaluation, variant: Variant, metric: Metric) -> None:
    measured: list[tuple[float, Interval]] = [
        (row.guidance_scale, value) for row in evaluation.of(variant) if (value := getattr(row, metric)) is not None
    ]
    if not measured:
        return
    scales = [scale for scale, _ in measured]
    values = [item.value for _, item in measured]
    axes.plot(scales, values, FORMATS[variant], color=COLOURS[variant], label=LABELS[variant])
    lows, highs = [item.low for _, item in measured], [item.high for _, item in measured]
    axes.fill_between(scales, lows, highs, color=COLOURS[variant], alpha=0.15, linewidth=0)


def _draw_recovered(
    axes: Axes, teacher_states: Mapping[str, float], own_states: Mapping[str, float] | None = None
) -> None:
    """Draw the adapter between the two ends that define the number: CFG is 1, no guidance is 0."""
    axes.axhline(1, color=COLOURS["cfg"], linestyle="--", label=LABELS["cfg"])
    axes.axhline(0, color=COLOURS["none"], linestyle=":", label=LABELS["none"])
    axes.plot(*_points(teacher_states), color=COLOURS["adapter"], marker="^", label=LABELS["adapter"])
    if own_states:
        label = "Adapter, own states"
        axes.plot(*_points(own_states), color=COLOURS["adapter"], marker="v", linestyle="-.", alpha=0.7, label=label)


def _draw_bars(axes: Axes, evaluation: Evaluation, metric: str, title: str) -> None:
    measured: list[tuple[Variant, float]] = [
        (variant, number) for variant in VARIANTS if (number := evaluation.typical(variant, metric)) is not None
    ]
    names, numbers = [LABELS[variant] for variant, _ in measured], [number for _, number in measured]
    bars = axes.barh(names, numbers, color=[COLOURS[variant] for variant, _ in measured], height=0.6)
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set(title=title, xticks=[])
    axes.spines["bottom"].set_visible(False)


def _points(recovered: Mapping[str, float]) -> tuple[list[float], list[float]]:
    pairs = sorted((float(key), value) for key, value in recovered.items())
    return [key for key, _ in pairs], [value for _, value in pairs]


def _column(log_rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return sorted((float(row["step"]), float(row[name])) for row in log_rows if row.get(name) is not None)


def _binned(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    size = -(-len(points) // LOSS_POINTS) or 1
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [fmean(step for step, _ in part) for part in bins], [fmean(value for _, value in part) for part in bins]


def _svg(figure: Figure, description: str) -> str:
    """Return the figure as an SVG element to stand in HTML: no prologue, no metadata, the same text every time."""
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    file = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": description}):  # ids differ between the figures of one page
        FigureCanvasSVG(figure).print_svg(file, metadata=metadata)
    element = file.getvalue()[file.getvalue().index("<svg") :].replace(INK, "currentColor")
    return element.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
