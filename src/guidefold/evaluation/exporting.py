"""Export an adapter's foldable part as a LoRA file, and measure what it keeps of the whole adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidefold.denoiser import chosen_denoiser
from guidefold.errors import InputError
from guidefold.evaluation.predictions import on_teacher_states
from guidefold.keeping import Adapter
from guidefold.keeping.export import (
    check_file,
    check_trained,
    deltas_of,
    described,
    foldable,
    format_for,
    named,
    pairs_of,
    write,
)


@dataclass(frozen=True)
class Exported:
    """A LoRA file, what is in it as an adapter, and the guidance recovered by the whole adapter and by this part."""

    path: Path
    layers: int
    part: Adapter
    whole: float
    kept: float


def export(
    pipe: Any,
    adapter: Adapter,
    output: str | Path,
    prompts: Sequence[str],
    *,
    guidance_scale: float,
    style: str | None = None,
    steps: int = 20,
    seed: int = 0,
    batch: int = 16,
    **arguments: Any,
) -> Exported:
    """Write the part of an adapter that folds into weights at one scale; measure it on the teacher's states of prompts.

    `style` is "kohya" or "diffusers"; without one, what most programs read. `arguments` go to the pipeline's call. The
    adapter must not be attached. Raises InputError for an adapter that has no such part.
    """
    path = Path(output)
    check_file(path, guidance_scale)
    deltas_of(adapter)
    check_trained(adapter, guidance_scale)
    denoiser = chosen_denoiser(pipe, adapter.spec.denoiser)
    style = format_for(denoiser, style)
    off = next(iter(adapter.spec.offs.values()))
    options = {"steps": steps, "seed": seed, "batch": batch, **arguments}
    gates = Gates(adapter)
    whole = recovered(pipe, adapter, prompts, guidance_scale, gates, options)
    part, kept = adapter, whole
    if set(adapter.layered) != set(adapter.deltas) or adapter.film is not None:
        part = foldable(adapter, gates.mean()).requires_grad_(False)
        kept = recovered(pipe, part, prompts, guidance_scale, None, options)
    pairs = pairs_of(part, guidance_scale + 1 - off)
    told = {
        **described(denoiser, path.stem),
        "guidefold.guidance_scale": f"{guidance_scale:g}",
        "guidefold.recovered": f"{kept:.3f}",
        "guidefold.recovered_by_adapter": f"{whole:.3f}",
        "guidefold.base": adapter.trained.get("base", "unknown"),
        "guidefold.use": "strength 1, CFG 1, at about this guidance scale's look",
    }
    write(named(pairs, denoiser, style), path, told)
    return Exported(path=path, layers=len(pairs), part=part, whole=whole, kept=kept)


class Gates:
    """The mean of the output layer's gates over an adapter's calls."""

    def __init__(self, adapter: Adapter) -> None:
        self.heads, self.seen = adapter.heads, []

    def look(self, module: Any, inputs: tuple, numbers: Tensor) -> None:
        if self.heads.last:
            self.seen.append(numbers[:, -self.heads.last :].detach().float())

    def mean(self) -> Tensor | None:
        return torch.cat(self.seen).mean(0) if self.seen else None


def recovered(
    pipe: Any, adapter: Adapter, prompts: Sequence[str], scale: float, gates: Gates | None, options: dict[str, Any]
) -> float:
    """Return the guidance recovered by an adapter on the teacher's states, noting its gates."""
    adapter.attach(pipe)
    handle = adapter.heads.register_forward_hook(gates.look) if gates else None
    try:
        found, _ = on_teacher_states(pipe, adapter, prompts, [scale], **options)
    finally:
        if handle is not None:
            handle.remove()
        adapter.detach()
    if not found:
        raise InputError("guidance changes nothing for these prompts, so there is nothing to export; give others")
    return found[str(float(scale))]
