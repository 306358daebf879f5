"""Paired samples: teacher, bare conditional model and student from the same noise, with what each of them cost."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidefold.capture.run import as_conditions, check_arguments, failures_told
from guidefold.capture.switch import first_dial
from guidefold.denoiser import OFF, find_denoiser, latents_rows, quiet
from guidefold.errors import ModelError
from guidefold.evaluation.results import Variant
from guidefold.keeping import Adapter


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Pictures [N, 3, H, W] in 0..1 on the CPU, and the cost per image."""

    pictures: Tensor
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


def check_pictures(pipe: Any) -> None:
    """Raise ModelError for a pipeline whose kinds of output all lack pictures, as far as its module tells them."""
    outputs = next(filter(None, map(outputs_beside, type(pipe).__mro__)), [])
    held = [{item.name for item in fields(kind)} for kind in outputs]
    if held and not any("images" in names for names in held):
        raise ModelError(no_pictures(pipe, ", ".join(sorted(set.union(*held)))))


def outputs_beside(kind: type) -> list[Any]:
    """Return the classes of output that a pipeline's module defines or imports."""
    known = [one for one in vars(sys.modules.get(kind.__module__, object)).values() if isinstance(one, type)]
    return [one for one in known if one.__name__.endswith("PipelineOutput") and is_dataclass(one)]


def pictures_in(pipe: Any, made: Any) -> Tensor:
    """Return the pictures [N, 3, H, W] that a pipeline made. Raises ModelError where it made something else."""
    pictures = getattr(made, "images", None)
    if isinstance(pictures, np.ndarray) and pictures.ndim == 4:  # some give arrays [N, H, W, 3] for tensors
        pictures = torch.from_numpy(pictures).movedim(-1, 1)
    if not isinstance(pictures, Tensor) or pictures.dim() != 4 or pictures.shape[1] != 3:
        raise ModelError(no_pictures(pipe, type(made).__name__))
    return pictures


def no_pictures(pipe: Any, found: str) -> str:
    """Say that a pipeline makes something else."""
    return f"{type(pipe).__name__} makes {found}, not images; sample and eval take pipelines that make pictures"


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
    that makes no pictures.
    """
    check_arguments(pipe, arguments, [first_dial(pipe)])
    check_pictures(pipe)
    device, scale = find_denoiser(pipe).device, OFF if variant == "none" else guidance_scale
    with ExitStack() as stack:
        stack.enter_context(quiet(pipe))
        rows = stack.enter_context(counted(find_denoiser(pipe)))
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
    return Sampled(
        pictures=pictures_in(pipe, made).float().cpu(),
        seconds=seconds / len(prompts),
        passes=sum(rows) / len(prompts) / steps,
        peak_memory_mb=peak,
    )


def joined(parts: Sequence[Sampled]) -> Sampled:
    """Join batches; cost is the median batch's, because the first one warms up."""
    middle = sorted(part.seconds for part in parts)[len(parts) // 2]
    peaks = [part.peak_memory_mb for part in parts if part.peak_memory_mb is not None]
    return Sampled(
        pictures=torch.cat([part.pictures for part in parts]),
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
