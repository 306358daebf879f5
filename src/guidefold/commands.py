"""What each command of the command line does."""

from pathlib import Path
from typing import Any

from guidefold import models, ui
from guidefold.capture import observe as watch
from guidefold.capture.observe import enough_steps
from guidefold.capture.run import as_conditions, check_arguments
from guidefold.capture.switch import first_dial, has_guider
from guidefold.config import AdapterConfig, EvalConfig, ModelConfig, TrainConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.demo.demo import run_demo
from guidefold.distillation import run
from guidefold.distillation.cost import Cost, recording_cost, training_cost
from guidefold.distillation.states import TrialStates
from guidefold.errors import InputError
from guidefold.evaluation import gallery, media, saving
from guidefold.evaluation.evaluate import evaluate as judge_adapter
from guidefold.evaluation.results import VARIANTS, Evaluation
from guidefold.evaluation.sampling import sample as sample_batch
from guidefold.files import make_folder
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import BUNDLED, check_ours
from guidefold.keeping.merging import merge as mean_of
from guidefold.page.serve import check_installed, check_port, serve
from guidefold.page.workbench import Workbench
from guidefold.publishing import push as push
from guidefold.telling import info as info
from guidefold.trajectories.prompts import read_conditions
from guidefold.trajectories.recorder import Recorder


def demo(*, output: Path, minutes: float | None, quick: bool) -> None:
    """Train an adapter for the bundled teacher, judge it and write a report."""
    run_demo(output, minutes=minutes, quick=quick)


def pipeline(model: str, dress: ModelConfig, device: str | None, dtype: str, call: dict[str, Any]) -> Any:
    """Load a pipeline whose call takes these arguments, none of which is its scale. Raises InputError or ModelError."""
    pipe = models.load_pipeline(model, device, dtype, dress)
    check_arguments(pipe, call, () if has_guider(pipe) else (first_dial(pipe),))
    return pipe


def observe(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    prompt: str,
    guidance_scale: float,
    device: str | None,
    dtype: str,
) -> None:
    """Watch how a pipeline does guidance, and whether it can be folded."""
    pipe = pipeline(model, dress, device, dtype, call)
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
    dtype: str,
    dry_run: bool,
) -> None:
    """Record guided trajectories of a teacher into a store."""
    prompts = read_conditions(conditions)
    pipe = pipeline(model, dress, device, dtype, call)
    if dry_run:
        show_cost(recording_cost(Recorder(pipe, prompts, trajectory, **call)))
        return
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
    dtype: str,
    dry_run: bool,
) -> None:
    """Train an adapter on stores, or on states made on the fly from conditions."""
    prompts = None if conditions is None else read_conditions(conditions)
    if not dry_run:
        make_folder(output)
    pipe = pipeline(model, dress, device, dtype, call)
    if dry_run:
        source = run.open_source(pipe, store, prompts, train, trajectory, call)
        show_cost(training_cost(pipe, source, run.adapter_config(adapter, train), train, trajectory))
        return
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
    dtype: str,
    dry_run: bool,
) -> None:
    """Record and train in one go."""
    prompts = read_conditions(conditions)
    pipe = pipeline(model, dress, device, dtype, call)
    if dry_run:
        if train.source == "recorded":
            recorder = Recorder(pipe, prompts, trajectory, **call)
            show_cost(recording_cost(recorder))
            source = TrialStates(recorder, train)
        else:
            source = run.open_source(pipe, None, prompts, train, trajectory, call)
        show_cost(training_cost(pipe, source, run.adapter_config(adapter, train), train, trajectory))
        return
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
    figure = "" if recovered is None else f", which recovers {recovered:.1%} of guidance on held-out conditions"
    ui.say(f"the best adapter is in {output / 'best'}{figure}")


def show_cost(cost: Cost) -> None:
    """Print what a run would cost."""
    rows = [
        ("teacher passes", f"{cost.teacher_passes:,}"),
        ("student passes, forward and backward", f"{cost.student_passes:,}"),
        ("disk", ui.size(cost.store_bytes)),
        ("time, from a short trial", ui.duration(cost.seconds)),
    ]
    ui.table("This would cost", ("what", "how much"), rows)


def sample(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    adapter: str | None,
    prompts: list[str],
    guidance_scale: list[float],
    negative_prompt: str | None,
    output: Path,
    sampling_steps: int,
    seed: int,
    compare: bool,
    device: str | None,
    dtype: str,
) -> None:
    """Sample in one pass a step; with `compare`, also teacher and bare model from the same noise, as a grid."""
    chosen = None if adapter is None else models.load_adapter(adapter)
    if compare and chosen is None:
        raise InputError("--compare needs an adapter to compare; leave out --no-adapter")
    check_names(guidance_scale)
    make_folder(output)
    pipe = pipeline(model, dress, device, dtype, call)
    if "negative_prompt" in call:
        raise InputError(
            f"negative_prompt={call['negative_prompt']!r} is no argument for --call; use --negative-prompt"
        )
    if chosen is not None:
        chosen.attach(pipe)
    more = call | ({} if negative_prompt is None else {"negative_prompt": [negative_prompt] * len(prompts)})
    variants = VARIANTS if compare else ("adapter" if chosen else "cfg",)
    for scale in guidance_scale:
        columns = {}
        for variant in variants:
            done = sample_batch(pipe, prompts, variant, scale, steps=sampling_steps, seed=seed, adapter=chosen, **more)
            columns[variant] = [
                saving.save_made(pipe, done.kind, one, output / f"{number:03d}-{variant}-{scale:g}", call)
                for number, one in enumerate(done.outputs)
            ]
            cost = f"{done.passes:g} passes a step, {ui.duration(done.seconds)} {media.KINDS[done.kind]}"
            ui.say(f"{variant} at {scale:g}: {cost}")
        if compare:
            saving.save_image(gallery.grid(columns, prompts), output / f"compare-{scale:g}.png")
    ui.say(f"what was made is in {output}")


def check_names(scales: list[float]) -> None:
    """Raise InputError for scales whose pictures would have one name."""
    shown = [f"{scale:g}" for scale in scales]
    if repeats := [name for name in shown if shown.count(name) > 1]:
        raise InputError(f"two guidance scales are {repeats[0]}, and so would be the names of their images; give one")


def evaluate(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    adapter: str,
    conditions: Path | None,
    output: Path,
    evaluation: EvalConfig,
    device: str | None,
    dtype: str,
) -> None:
    """Compare teacher, bare model and student; write evaluation.json, pictures and report.html."""
    if conditions is None and model != BUNDLED:
        raise InputError("give prompts to judge on with --conditions")
    prompts = bundle.held_out_prompts() if conditions is None else read_conditions(conditions)
    chosen = models.load_adapter(adapter)
    gallery.check_place(make_folder(output))
    pipe = pipeline(model, dress, device, dtype, call)
    judge = models.load_judge(model, media.check_kind(pipe))
    results, pictures = judge_adapter(pipe, chosen, prompts, judge, evaluation, **call)
    gallery.save_results(output, results, pictures)
    show_evaluation(results)
    ui.say(f"report: {gallery.report_of(output)}")


def page(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    adapter: str,
    sampling_steps: int,
    port: int,
    device: str | None,
    dtype: str,
) -> None:
    """Serve a page on which no guidance, CFG and the adapter are sampled side by side."""
    check_installed()
    check_port(port)
    chosen = models.load_adapter(adapter)
    pipe = pipeline(model, dress, device, dtype, call)
    chosen.attach(pipe)
    serve(
        Workbench(pipe, chosen, steps=sampling_steps, call=call),
        f"{model}, adapter {adapter}, {sampling_steps} steps",
        port,
    )


def show_evaluation(results: Evaluation) -> None:
    """Print the table of an evaluation."""
    ui.table(f"Judged on {len(results.prompts)} held-out prompts", gallery.COLUMNS, gallery.table_rows(results))


def report(*, run: Path, output: Path | None) -> None:
    """Write the report of a run or an evaluation."""
    ui.say(f"report: {gallery.report_of(run, output)}")
