"""Judge an adapter: predictions, images, sets of images and cost, against the teacher and the bare model."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guidefold.capture.run import check_arguments, titles
from guidefold.capture.switch import first_dial
from guidefold.config import EvalConfig
from guidefold.denoiser import OFF, find_denoiser
from guidefold.evaluation import metrics
from guidefold.evaluation.judge import Judge, in_batches
from guidefold.evaluation.media import still
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
    judge: Judge | None,
    config: EvalConfig | None = None,
    **arguments: Any,
) -> tuple[Evaluation, list[PictureRow]]:
    """Compare the three variants on prompts that were not trained on; without an adapter, the teacher's two alone.

    The adapter is attached for the time of the evaluation if it was not. Without a judge, what needs no features is
    measured. `arguments` go to the pipeline's call. Returns the figures and pictures for a report. Raises InputError
    for arguments that the call does not take.
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
    judge: Judge | None,
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
        meta={
            "kind": sampled["none", OFF].kind,
            "judge": judge.name if judge else "none",
            "config": config.to_dict(),
            "call": plain(arguments),
            "images": len(chosen),
        },
    )
    return evaluation, pictures_of(sampled, titles(pipe, chosen), config.scales)


def spread_over(prompts: Sequence[str], count: int) -> list[str]:
    """Return `count` prompts, taken evenly from the list, and again from its start where it is too short."""
    if count <= len(prompts):
        return [prompts[index * len(prompts) // count] for index in range(count)]
    return [prompts[index % len(prompts)] for index in range(count)]


def rows_of(
    sampled: dict[tuple[Variant, float], Sampled], prompts: Sequence[str], judge: Judge | None, config: EvalConfig
) -> list[Row]:
    """Return the table's rows; the bare model's is repeated at every scale, since it knows none."""
    features = {key: features_of(judge, value) for key, value in sampled.items()}
    texts = judge.texts(prompts) if judge and judge.texts else None
    rows = []
    for scale in config.scales:
        teacher = sampled["cfg", scale], features["cfg", scale]
        for variant in VARIANTS:
            at = OFF if variant == "none" else scale
            if (variant, at) in sampled:
                own = sampled[variant, at], features[variant, at]
                figures: dict[str, Any] = paired(variant, own[0], teacher[0], sampled["none", OFF])
                if judge is not None:
                    figures |= judged(variant, own[1], teacher[1], texts, judge.reference, config)
                rows.append(
                    Row(
                        guidance_scale=scale,
                        variant=variant,
                        passes=own[0].passes,
                        seconds_per_image=own[0].seconds,
                        peak_memory_mb=own[0].peak_memory_mb,
                        **figures,
                    )
                )
    return rows


def features_of(judge: Judge | None, sampled: Sampled) -> Tensor:
    """Return features [N, F, D] of every frame, of which pictures and sounds have one; no frames without a judge."""
    count = len(sampled.outputs)
    if judge is None:
        return torch.empty(count, 0, 0)
    frames = sampled.outputs.flatten(0, 1) if sampled.kind == "frames" else sampled.outputs
    return in_batches(judge.images, frames).unflatten(0, (count, -1))


def paired(variant: Variant, own: Sampled, teacher: Sampled, bare: Sampled) -> dict[str, float | None]:
    """Return the figures that compare with the teacher's of the same noise and need no features."""
    figures: dict[str, float | None] = {}
    if own.kind == "frames":
        figures["motion"] = float(metrics.motion(own.outputs).mean())
    if variant == "cfg":
        return figures
    if own.latents is not None and teacher.latents is not None and bare.latents is not None:
        figures["latent_distance"] = metrics.share_of_distance(own.latents, teacher.latents, bare.latents)
    if own.kind == "audios":
        return figures | {"spectral_distance": float(metrics.spectral_distance(own.outputs, teacher.outputs).mean())}
    pair = [one.outputs.flatten(0, -4) for one in (own, teacher)]
    return figures | {"psnr": float(metrics.psnr(*pair).mean()), "ssim": float(metrics.ssim(*pair).mean())}


def judged(
    variant: Variant,
    features: Tensor,
    target: Tensor,
    texts: Tensor | None,
    reference: Tensor | None,
    config: EvalConfig,
) -> dict[str, Any]:
    """Return one variant's figures at one scale from features [N, F, D], those of a film being its frames' mean."""
    own, teacher = features.mean(1), target.mean(1)
    again = dict(resamples=config.bootstrap, seed=config.seed)
    figures: dict[str, Any] = clip_of(variant, own, teacher, texts, again)
    if variant != "cfg":
        frames = (features.flatten(0, 1), target.flatten(0, 1))
        figures["feature_distance"] = float(metrics.feature_distance(*frames).mean())
    if variant != "cfg" or reference is not None:
        real = teacher if reference is None else reference
        figures["frechet"] = metrics.bootstrap(lambda x: metrics.frechet_distance(x, real), own, **again)
        figures["kernel_distance"] = metrics.kernel_distance(real, own)
        figures["precision"], figures["recall"] = metrics.precision_recall(real, own)
    return figures


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


def pictures_of(
    sampled: dict[tuple[Variant, float], Sampled], shown: Sequence[str], scales: Sequence[float]
) -> list[PictureRow]:
    """Return the first pictures of every variant at the middle scale, for people to look at."""
    scale = scales[len(scales) // 2]
    keys: dict[str, tuple[Variant, float]] = {
        "none": ("none", OFF),
        "cfg": ("cfg", scale),
        "adapter": ("adapter", scale),
    }
    every = max(1, len(shown) // SHOWN)
    return [
        PictureRow(
            prompt=shown[index],
            guidance_scale=scale,
            images={
                name: still(sampled[key].kind, sampled[key].outputs[index])
                for name, key in keys.items()
                if key in sampled
            },
        )
        for index in range(0, len(shown), every)
    ][:SHOWN]
