"""Commands that look at what a model makes with its adapter: samples, a page in the browser, an evaluation."""

from pathlib import Path
from typing import Any

from guidefold import models, ui
from guidefold.capture.run import titles
from guidefold.config import EvalConfig, HoldingConfig, ModelConfig
from guidefold.demo import bundle
from guidefold.errors import InputError
from guidefold.evaluation import gallery, media, saving
from guidefold.evaluation.evaluate import evaluate as judge_adapter
from guidefold.evaluation.results import VARIANTS, Evaluation
from guidefold.evaluation.sampling import sample as sample_batch
from guidefold.files import make_folder
from guidefold.keeping import Adapter
from guidefold.models import pipeline
from guidefold.page.serve import check_installed, check_port, serve
from guidefold.page.workbench import Workbench
from guidefold.trajectories.prompts import read_conditions

USUAL = 7.5  # guidance scale


def sample(
    *,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    adapter: str | None,
    prompts: list[str],
    guidance_scale: list[float] | None,
    negative_prompt: str | None,
    output: Path,
    sampling_steps: int,
    seed: int,
    compare: bool,
    device: str | None,
    dtype: str | None,
    holding: HoldingConfig,
) -> None:
    """Sample in one pass a step; with `compare`, also teacher and bare model from the same noise, as a grid."""
    chosen = None if adapter is None else models.load_adapter(adapter, model)
    if compare and chosen is None:
        raise InputError("--compare needs an adapter to compare; leave out --no-adapter")
    scales = guidance_scale or [usual_scale(chosen)]
    check_names(scales)
    make_folder(output)
    pipe = pipeline(model, device, dtype, call, holding, dress)
    if "negative_prompt" in call:
        raise InputError(
            f"negative_prompt={call['negative_prompt']!r} is no argument for --call; use --negative-prompt"
        )
    if chosen is not None:
        chosen.attach(pipe)
    more = call | ({} if negative_prompt is None else {"negative_prompt": [negative_prompt] * len(prompts)})
    variants = VARIANTS if compare else ("adapter" if chosen else "cfg",)
    kinds = set()
    for scale in scales:
        columns = {}
        for variant in variants:
            done = sample_batch(pipe, prompts, variant, scale, steps=sampling_steps, seed=seed, adapter=chosen, **more)
            columns[variant] = [
                saving.save_made(pipe, done.kind, one, output / f"{number:03d}-{variant}-{scale:g}", call)
                for number, one in enumerate(done.outputs)
            ]
            kinds.add(done.kind)
            cost = f"{done.passes:g} passes a step, {ui.duration(done.seconds)} {media.KINDS[done.kind]}"
            ui.say(f"{variant} at {scale:g}: {cost}")
        if compare:
            saving.save_image(gallery.grid(columns, titles(pipe, prompts)), output / f"compare-{scale:g}.png")
    if "frames" in kinds and not saving.makes_mp4():
        ui.say("films are GIFs; for MP4 files too, install the extra video: imageio and imageio-ffmpeg")
    ui.say(f"what was made is in {output}")


def usual_scale(adapter: Adapter | None) -> float:
    """Return the usual guidance scale, or the middle of those that an adapter was trained at where it is not one."""
    trained = {} if adapter is None else adapter.trained
    low, high = trained.get("scale_min", USUAL), trained.get("scale_max", USUAL)
    return USUAL if low <= USUAL <= high else round((low + high) / 2, 1)


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
    dtype: str | None,
    holding: HoldingConfig,
) -> None:
    """Compare teacher, bare model and student; write evaluation.json, pictures and report.html."""
    if conditions is None and model not in bundle.FOLDERS:
        raise InputError("give prompts to judge on with --conditions")
    prompts = bundle.held_out_prompts(model) if conditions is None else read_conditions(conditions)
    chosen = models.load_adapter(adapter, model)
    gallery.check_place(make_folder(output))
    pipe = pipeline(model, device, dtype, call, holding, dress)
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
    dtype: str | None,
) -> None:
    """Serve a page on which no guidance, CFG and the adapter are sampled side by side."""
    check_installed()
    check_port(port)
    chosen = models.load_adapter(adapter, model)
    pipe = pipeline(model, device, dtype, call, None, dress)
    chosen.attach(pipe)
    serve(
        Workbench(pipe, chosen, steps=sampling_steps, call=call),
        f"{model}, adapter {adapter}, {sampling_steps} steps",
        port,
    )


def show_evaluation(results: Evaluation) -> None:
    """Print the table of an evaluation."""
    ui.table(f"Judged on {len(results.prompts)} held-out prompts", gallery.COLUMNS, gallery.table_rows(results))
