"""Paired samples: teacher, bare conditional model and student from the same noise, with what each of them cost."""

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guidefold.answers import leaves
from guidefold.capture.run import as_conditions, check_arguments, failures_told
from guidefold.capture.switch import first_dial
from guidefold.capture.tape import aligned, schedulers
from guidefold.denoiser import OFF, find_denoiser, latents_rows, quiet, replaced
from guidefold.evaluation.media import Kind, check_kind, made_by
from guidefold.evaluation.results import Variant
from guidefold.keeping import Adapter


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What was made, on the CPU: pictures [N, 3, H, W] or films [N, F, 3, H, W] in 0..1, or sounds [N, C, T].

    `latents` [N, D] are what the last step made; the cost is that of one image, film or sound.
    """

    kind: Kind
    outputs: Tensor
    latents: Tensor | None
    seconds: float
    passes: float
    peak_memory_mb: float | None


@contextmanager
def counted(denoiser: Any) -> Iterator[list[int]]:
    """Count the rows of every call of a denoiser."""
    rows: list[int] = []
    handle = denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(latents_rows(args, kwargs)), with_kwargs=True
    )
    try:
        yield rows
    finally:
        handle.remove()


def noise(seed: int, count: int) -> list[torch.Generator]:
    """Return one generator per image, the same for every variant."""
    return [torch.Generator().manual_seed(seed + index) for index in range(count)]


@contextmanager
def last_latents(pipe: Any) -> Iterator[list[Tensor]]:
    """Keep what a pipeline's schedulers made last, alone in a list."""
    kept: list[Tensor] = []

    def watching(step: Any) -> Any:
        @functools.wraps(step)
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            made = step(self, *args, **kwargs)
            kept[:] = leaves(made)[:1]
            return made

        return watched

    with ExitStack() as stack:
        for scheduler in schedulers(pipe):  # their classes, because some pipelines copy their scheduler
            stack.enter_context(replaced(scheduler, "step", watching(scheduler.step)))
        yield kept


def by_row(latents: list[Tensor], count: int) -> Tensor | None:
    """Return latents as rows [N, D] on the CPU, or None where there are none for each of `count` images."""
    if not latents or latents[0].shape[0] % count:
        return None
    # some pipelines step the same latents for both branches of guidance
    once = aligned(latents[0], latents[0][:count])
    return (latents[0] if once is None else once).detach().float().cpu().reshape(count, -1)


@torch.no_grad()
def sample(
    pipe: Any,
    prompts: Sequence[str],
    variant: Variant,
    guidance_scale: float,
    *,
    steps: int,
    seed: int,
    adapter: Adapter | None,
    **arguments: Any,
) -> Sampled:
    """Sample one batch of a variant; an adapter must be attached to the pipeline, and is switched off unless wanted.

    `arguments` go to the pipeline's call. Raises InputError for those it does not take, and ModelError for a pipeline
    that makes neither pictures nor films nor sounds.
    """
    check_arguments(pipe, arguments, [first_dial(pipe)])
    check_kind(pipe)
    device, scale = find_denoiser(pipe).device, OFF if variant == "none" else guidance_scale
    with ExitStack() as stack:
        stack.enter_context(quiet(pipe))
        rows = stack.enter_context(counted(find_denoiser(pipe)))
        latents = stack.enter_context(last_latents(pipe))
        if adapter is not None and variant != "adapter":
            stack.enter_context(adapter.disabled())
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        call = as_conditions(pipe, prompts) | {"num_inference_steps": steps, first_dial(pipe): scale}
        with failures_told(pipe):
            made = pipe(**call, **arguments, generator=noise(seed, len(prompts)), output_type="pt")
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    kind, outputs = made_by(pipe, made)
    return Sampled(
        kind=kind,
        outputs=outputs,
        latents=by_row(latents, len(prompts)),
        seconds=seconds / len(prompts),
        passes=sum(rows) / len(prompts) / steps,
        peak_memory_mb=peak,
    )


def joined(parts: Sequence[Sampled]) -> Sampled:
    """Join batches; cost is the median batch's, because the first one warms up."""
    middle = sorted(part.seconds for part in parts)[len(parts) // 2]
    peaks = [part.peak_memory_mb for part in parts if part.peak_memory_mb is not None]
    latents = [part.latents for part in parts if part.latents is not None]
    return Sampled(
        kind=parts[0].kind,
        outputs=torch.cat([part.outputs for part in parts]),
        latents=torch.cat(latents) if len(latents) == len(parts) else None,
        seconds=middle,
        passes=parts[-1].passes,
        peak_memory_mb=max(peaks, default=None),
    )


def sample_variants(
    pipe: Any,
    prompts: Sequence[str],
    guidance_scales: Sequence[float],
    *,
    adapter: Adapter | None,
    steps: int,
    seed: int,
    batch: int,
    advance: Any = lambda _: None,
    **arguments: Any,
) -> dict[tuple[Variant, float], Sampled]:
    """Sample all variants at all scales, interleaved batch by batch so that a noisy machine treats them alike."""
    variants: list[tuple[Variant, float]] = [("none", OFF)]
    for scale in guidance_scales:
        variants.append(("cfg", scale))
        if adapter is not None:
            variants.append(("adapter", scale))
    parts: dict[tuple[Variant, float], list[Sampled]] = {variant: [] for variant in variants}
    for start in range(0, len(prompts), batch):
        chunk = prompts[start : start + batch]
        for variant, scale in variants:
            one = sample(pipe, chunk, variant, scale, steps=steps, seed=seed + start, adapter=adapter, **arguments)
            parts[variant, scale].append(one)
            advance(len(chunk))
    return {key: joined(value) for key, value in parts.items()}
