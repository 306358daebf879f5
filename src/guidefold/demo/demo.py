"""The main job, end to end: distil a bundled teacher's guidance, judge it on held-out prompts, write the report."""

import time
from dataclasses import replace
from pathlib import Path

from guidefold import ui
from guidefold.config import EvalConfig, TrainConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.distillation.run import distill
from guidefold.evaluation import gallery
from guidefold.evaluation.evaluate import evaluate
from guidefold.keeping import Adapter

TEACHERS = {"unet": bundle.UNET, "dit": bundle.DIT, "sd3": bundle.SD3}
MINUTES = 4.0  # what the settings below take on two CPU cores

TRAJECTORY = TrajectoryConfig(trajectories=96, keep=20, shard=16)
TRAIN = TrainConfig(
    steps=140, batch_size=32, learning_rate=4e-3, ema_decay=0.97, validation=4, validate_every=70, checkpoint_every=70
)
EVALUATION = EvalConfig(scales=(2.0, 4.0, 8.0), images=32, eval_batch=16, bootstrap=100)
# of the transformers, whose steps cost a fraction
SMALL = (
    replace(TRAJECTORY, trajectories=320, record_batch=32),
    replace(TRAIN, steps=500, batch_size=64, validate_every=250, checkpoint_every=250),
)
NOTES = (
    "This adapter was trained for a minute or two, to show the whole way; the bundled adapter was trained longer.",
    "Fréchet distances of this few images are biased upwards: compare the columns, not the size.",
)


def run_demo(output: Path, *, teacher: str = bundle.UNET, minutes: float | None, quick: bool) -> Path:
    """Run the demo in `output`, going on from where it was interrupted, and return the report's path."""
    start, evaluation = time.monotonic(), EVALUATION
    trajectory, train = (TRAJECTORY, TRAIN) if teacher == bundle.UNET else SMALL
    if minutes is not None:
        train = replace(train, steps=max(20, round(train.steps * minutes / MINUTES)))
    if quick:
        trajectory = replace(trajectory, trajectories=16, sampling_steps=6, keep=4, shard=8, record_batch=8)
        train = replace(train, steps=10, batch_size=16, validate_every=10, checkpoint_every=10)
        evaluation = replace(evaluation, scales=(4.0,), images=8, sampling_steps=6, eval_batch=8, bootstrap=20)
    pipe, judge = bundle.load_teacher(name=teacher), bundle.load_judge(teacher)
    run = output / "run"
    call = bundle.CALLS[teacher]
    adapter = distill(pipe, bundle.prompts(teacher), run, trajectory=trajectory, config=train, **call)
    assert isinstance(adapter, Adapter)
    results, pictures = evaluate(pipe, adapter, bundle.held_out_prompts(teacher), judge, evaluation, **call)
    gallery.save_results(run, results, pictures)
    report = gallery.report_of(run, output / "report.html", notes=NOTES)
    title = f"Judged on {len(results.prompts)} held-out prompts, after {ui.duration(time.monotonic() - start)}"
    ui.table(title, gallery.COLUMNS, gallery.table_rows(results))
    ui.say(f"report: {report.resolve()}")
    return report
