"""Judge an adapter: predictions, images, sets of images and cost, against the teacher and the bare model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from guidefold.capture.run import check_arguments
from guidefold.capture.switch import first_dial
from guidefold.config import EvalConfig
from guidefold.denoiser import OFF, find_denoiser
from guidefold.evaluation import metrics
from guidefold.evaluation.judge import Judge, in_batches
from guidefold.evaluation.predictions import on_own_states, on_teacher_states
from guidefold.evaluation.report import PictureRow
from guidefold.evaluation.results import VARIANTS, Evaluation, Interval, Row, Variant
from guidefold.evaluation.sampling import Sampled, sample_variants
from guidefold.keeping import Adapter
from guidefold.memory import memory_told
from guidefold.trajectories.identity import plain
from guidefold.ui import progress

PREDICTIONS = 16  # prompts whose single predictions are compared
SHOWN = 6  # prompts in the picture grid of a report


def evaluate(
    pipe: Any,
    adapter: Adapter | None,
    prompts: Sequence[str],
    judge: Judge,
    config: EvalConfig | None = None,
    **arguments: Any,
) -> tuple[Evaluation, list[PictureRow]]:
    """Compare the three variants on prompts that were not trained on; without an adapter, the teacher's two alone.

    The adapter is attached for the time of the evaluation if it was not. `arguments` go to the pipeline's call. Returns
    the figures and pictures for a report. Raises InputError for arguments that the call does not take.
    """
    config = config or EvalConfig()
    check_arguments(pipe, arguments, [first_dial(pipe)])
    attached_here = adapter is not None and not adapter.attached
    if adapter is not None and attached_here:
        adapter.attach(pipe)
    try:
        with memory_told("give a smaller eval_batch, or fewer images"):
            return measured(pipe, adapter, prompts, judge, config, arguments)
    finally:
        if adapter is not None and attached_here:
            adapter.detach()


def measured(
    pipe: Any,
    adapter: Adapter | None,
    prompts: Sequence[str],
    judge: Judge,
    config: EvalConfig,
    arguments: Mapping[str, Any],
) -> tuple[Evaluation, list[PictureRow]]:
    chosen = spread_over(prompts, config.images)
    few = dict(steps=config.sampling_steps, seed=config.seed, batch=config.eval_batch, **arguments)
    variants = 1 + len(config.scales) * (1 if adapter is None else 2)
    with progress("Sampling", variants * len(chosen)) as bar:
        sampled = sample_variants(pipe, chosen, config.scales, adapter=adapter, advance=bar.advance, **few)
    by_scale: dict[str, float] = {}
    by_timestep: dict[str, float] = {}
    own: dict[str, float] = {}
    if adapter is not None:
        by_scale, by_timestep = on_teacher_states(pipe, adapter, chosen[:PREDICTIONS], config.scales, **few)
        own = on_own_states(pipe, adapter, chosen[:PREDICTIONS], config.scales, **few)
    evaluation = Evaluation(
        rows=rows_of(sampled, chosen, judge, config),
        recovered_by_scale=by_scale,
        recovered_by_timestep=by_timestep,
        recovered_on_own_states=own,
        prompts=chosen,
        sampling_steps=config.sampling_steps,
        device=str(find_denoiser(pipe).device),
        meta={"judge": judge.name, "config": config.to_dict(), "call": plain(arguments), "images": len(chosen)},
    )
    return evaluation, pictures_of(sampled, chosen, config.scales)


def spread_over(prompts: Sequence[str], count: int) -> list[str]:
    """Return `count` prompts, taken evenly from the list, and again from its start where it is too short."""
    if count <= len(prompts):
        return [prompts[index * len(prompts) // count] for index in range(count)]
    return [prompts[index % len(prompts)] for index in range(count)]


def rows_of(
    sampled: dict[tuple[Variant, float], Sampled], prompts: Sequence[str], judge: Judge, config: EvalConfig
) -> list[Row]:
    """Return the table's rows; the bare model's is repeated at every scale, since it knows none."""
    features = {key: in_batches(judge.images, value.pictures) for key, value in sampled.items()}
    texts = judge.texts(prompts) if judge.texts else None
    rows = []
    for scale in config.scales:
        teacher = sampled["cfg", scale], features["cfg", scale]
        for variant in VARIANTS:
            at = OFF if variant == "none" else scale
            if (variant, at) in sampled:
                own = sampled[variant, at], features[variant, at]
                rows.append(row_of(variant, scale, own, teacher, texts, judge.reference, config))
    return rows


def row_of(
    variant: Variant,
    scale: float,
    own: tuple[Sampled, Tensor],
    teacher: tuple[Sampled, Tensor],
    texts: Tensor | None,
    reference: Tensor | None,
    config: EvalConfig,
) -> Row:
    """Return one variant's figures at one scale."""
    (sampled, features), (target, target_features) = own, teacher
    real = target_features if reference is None else reference
    against_itself = variant == "cfg" and reference is None
    again = dict(resamples=config.bootstrap, seed=config.seed)
    precision, recall = metrics.precision_recall(real, features)
    return Row(
        guidance_scale=scale,
        variant=variant,
        passes=sampled.passes,
        seconds_per_image=sampled.seconds,
        peak_memory_mb=sampled.peak_memory_mb,
        frechet=None
        if against_itself
        else metrics.bootstrap(lambda x: metrics.frechet_distance(x, real), features, **again),
        kernel_distance=None if against_itself else metrics.kernel_distance(real, features),
        precision=None if against_itself else precision,
        recall=None if against_itself else recall,
        **clip_of(variant, features, target_features, texts, again),
        psnr=None if variant == "cfg" else float(metrics.psnr(sampled.pictures, target.pictures).mean()),
        ssim=None if variant == "cfg" else float(metrics.ssim(sampled.pictures, target.pictures).mean()),
        feature_distance=None
        if variant == "cfg"
        else float(metrics.feature_distance(features, target_features).mean()),
    )


def clip_of(
    variant: Variant, features: Tensor, target: Tensor, texts: Tensor | None, again: dict[str, int]
) -> dict[str, Interval | None]:
    """Return how well pictures fit their texts, and how much better than the teacher's of the same noise.

    `features`, of the teacher's pictures `target`, and `texts` are [N, D]; without texts nothing is measured.
    """
    if texts is None:
        return {}
    own, teacher = metrics.clip_score(features, texts), metrics.clip_score(target, texts)
    difference = None if variant == "cfg" else metrics.bootstrap(torch.mean, own - teacher, **again)
    return {"clip_score": metrics.bootstrap(torch.mean, own, **again), "clip_difference": difference}


def to_image(picture: Tensor) -> Image.Image:
    """Turn a picture [3, H, W] in 0..1 into an image."""
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())


def pictures_of(
    sampled: dict[tuple[Variant, float], Sampled], prompts: Sequence[str], scales: Sequence[float]
) -> list[PictureRow]:
    """Return the first pictures of every variant at the middle scale, for people to look at."""
    scale = scales[len(scales) // 2]
    keys: dict[str, tuple[Variant, float]] = {
        "none": ("none", OFF),
        "cfg": ("cfg", scale),
        "adapter": ("adapter", scale),
    }
    every = max(1, len(prompts) // SHOWN)
    return [
        PictureRow(
            prompt=prompts[index],
            guidance_scale=scale,
            images={name: to_image(sampled[key].pictures[index]) for name, key in keys.items() if key in sampled},
        )
        for index in range(0, len(prompts), every)
    ][:SHOWN]
