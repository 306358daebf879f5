"""What each command of the command line does."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from guidefold import dry_run as cost
from guidefold import models, ui
from guidefold.capture import observe as watch
from guidefold.capture.observe import enough_steps
from guidefold.capture.run import as_conditions, check_arguments
from guidefold.capture.switch import first_dial, has_guider
from guidefold.config import AdapterConfig, HoldingConfig, ModelConfig, TrainConfig, TrajectoryConfig
from guidefold.demo.demo import TEACHERS, run_demo
from guidefold.distillation import run
from guidefold.distillation.opening import needs_of
from guidefold.evaluation import gallery
from guidefold.exporting import export as export
from guidefold.files import make_folder
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import check_ours
from guidefold.keeping.merging import merge as mean_of
from guidefold.looking import evaluate as evaluate
from guidefold.looking import page as page
from guidefold.looking import sample as sample
from guidefold.models import pipeline
from guidefold.publishing import push as push
from guidefold.telling import info as info
from guidefold.trajectories.prompts import read_conditions


def demo(*, output: Path, teacher: str, minutes: float | None, quick: bool) -> None:
    """Train an adapter for a bundled teacher, judge it and write a report."""
    run_demo(output, teacher=TEACHERS[teacher], minutes=minutes, quick=quick)


def loader(
    model: str,
    device: str | None,
    dtype: str | None,
    call: dict[str, Any],
    holding: HoldingConfig,
    dress: ModelConfig,
) -> cost.Loader:
    """Return how a dry run gets its model, on the CPU first."""
    made = partial(pipeline, dress=dress)
    given = {"model": model, "device": device, "dtype": dtype, "holding": holding, "call": call}
    return cost.Loader(pipeline=made, bare=is_bare(dress), controlnet=dress.controlnet, **given)


def is_bare(dress: ModelConfig) -> bool:
    """Tell whether a model's parts can be loaded alone: nothing is put on its denoiser, and it is the newest."""
    return replace(dress, controlnet=None) == ModelConfig()


def observe(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    prompt: str,
    guidance_scale: float,
    device: str | None,
    dtype: str | None,
) -> None:
    """Watch how a pipeline does guidance, and whether it can be folded."""
    pipe = pipeline(model, device, dtype, call, None, dress)
    name = None if has_guider(pipe) else first_dial(pipe)
    scale = {} if name is None else {name: guidance_scale}
    check_arguments(pipe, call, scale)
    given = {"output_type": "latent", **as_conditions(pipe, [prompt]), **scale, **call}
    steps = enough_steps(pipe, lambda few: {"num_inference_steps": few, **given}, TrajectoryConfig().sampling_steps)
    seen = watch(pipe, num_inference_steps=steps, **given)
    anchors, further = seen.switch.dials[: seen.switch.anchors], seen.switch.dials[seen.switch.anchors :]
    rows = [
        ("guided networks", ", ".join(seen.denoisers)),
        ("guidance is off at", ", ".join(f"{dial.name}={dial.off:g}" for dial in anchors)),
        ("further scales", ", ".join(dial.name for dial in further) or "none"),
        ("rows with guidance and without", f"{seen.guided.rows} and {seen.bare.rows}"),
        ("the scheduler receives", "; ".join(seen.kinds())),
        ("relative error of the target", f"{seen.target_error:.0e}"),
        ("of the student's inputs", f"{seen.input_error:.0e}"),
        ("of a perfect student's result", f"{seen.result_error:.0e}"),
        ("of answers to recorded calls", f"{max(one.error for one in seen.replays.values()):.0e}"),
    ]
    ui.table(f"{type(pipe).__name__} can be folded", ("what", "is"), rows)


def record(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    conditions: Path,
    output: Path,
    trajectory: TrajectoryConfig,
    device: str | None,
    dtype: str | None,
    holding: HoldingConfig,
    dry_run: bool,
) -> None:
    """Record guided trajectories of a teacher into a store."""
    prompts = read_conditions(conditions)
    if dry_run:
        cost.record(loader(model, device, dtype, call, holding, dress), prompts, trajectory)
        return
    pipe = pipeline(model, device, dtype, call, holding, dress)
    store = run.record(pipe, prompts, output, trajectory, **call)
    ui.say(f"{trajectory.trajectories} trajectories in {store.folder}")


def train(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    store: list[Path] | None,
    conditions: Path | None,
    output: Path,
    adapter: AdapterConfig | None,
    train: TrainConfig,
    trajectory: TrajectoryConfig,
    device: str | None,
    dtype: str | None,
    holding: HoldingConfig,
    dry_run: bool,
) -> None:
    """Train an adapter on stores, or on states made on the fly from conditions."""
    prompts = None if conditions is None else read_conditions(conditions)
    if dry_run:
        made = loader(model, device, dtype, call, holding, dress)
        cost.train(made, store, prompts, adapter, train, trajectory)
        return
    make_folder(output)
    # a store has been recorded already: encoders and VAE stay where they are
    if train.source == "recorded" and not call and is_bare(dress):
        name, makers = needs_of(store)
        pipe = models.load_denoiser(model, device, dtype, name, holding, makers, dress.controlnet)
    else:
        pipe = pipeline(model, device, dtype, call, holding, dress)
    trained = run.train(
        pipe, output, store=store, conditions=prompts, adapter=adapter, config=train, trajectory=trajectory, **call
    )
    say_trained(trained, output)


def distill(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    conditions: Path,
    output: Path,
    adapter: AdapterConfig | None,
    trajectory: TrajectoryConfig,
    train: TrainConfig,
    device: str | None,
    dtype: str | None,
    holding: HoldingConfig,
    dry_run: bool,
) -> None:
    """Record and train in one go."""
    prompts = read_conditions(conditions)
    if dry_run:
        cost.distill(loader(model, device, dtype, call, holding, dress), prompts, adapter, train, trajectory)
        return
    pipe = pipeline(model, device, dtype, call, holding, dress)
    trained = run.distill(pipe, prompts, output, adapter=adapter, trajectory=trajectory, config=train, **call)
    say_trained(trained, output)


def merge(*, adapters: list[str], shares: list[float] | None, output: Path) -> None:
    """Average adapters that were trained from the same start."""
    check_ours(make_folder(output))
    mean_of(adapters, shares).save_pretrained(output)
    ui.say(f"the mean of {len(adapters)} adapters is in {output}")


def say_trained(adapter: Adapter | AdapterGroup, output: Path) -> None:
    if isinstance(adapter, AdapterGroup):
        ui.say(f"the best adapters, of {', '.join(adapter.adapters)}, are in {output / 'best'}")
        return
    recovered = adapter.trained.get("recovered")
    figure = "" if recovered is None else f", which recovers {recovered:.1%} of guidance on held-out trajectories"
    ui.say(f"the best adapter is in {output / 'best'}{figure}")


def report(*, run: Path, output: Path | None) -> None:
    """Write the report of a run or an evaluation."""
    ui.say(f"report: {gallery.report_of(run, output)}")
