"""The command that writes a LoRA file."""

from pathlib import Path
from typing import Any

from guidefold import models, ui
from guidefold.capture.run import check_arguments
from guidefold.capture.switch import first_dial
from guidefold.config import ModelConfig
from guidefold.demo import bundle
from guidefold.errors import InputError
from guidefold.evaluation.evaluate import PREDICTIONS
from guidefold.evaluation.exporting import export as export_lora
from guidefold.keeping.export import check_file, check_trained, deltas_of
from guidefold.trajectories.prompts import read_conditions


def export(
    *,
    adapter: str,
    guidance_scale: float,
    style: str | None,
    output: Path,
    sampling_steps: int,
    model: str,
    dress: ModelConfig,
    call: dict[str, Any],
    conditions: Path | None,
    device: str | None,
    dtype: str,
) -> None:
    """Write an adapter's deltas at one scale as a LoRA file, and tell what they keep of the whole adapter."""
    check_file(output, guidance_scale)
    chosen = models.load_adapter(adapter, model)
    deltas_of(chosen)
    check_trained(chosen, guidance_scale)
    if conditions is None and model not in bundle.FOLDERS:
        raise InputError("give prompts to judge the file on with --conditions")
    prompts = bundle.held_out_prompts(model) if conditions is None else read_conditions(conditions)
    pipe = models.load_pipeline(model, device, dtype, dress=dress)
    check_arguments(pipe, call, (first_dial(pipe),))
    settings = {"guidance_scale": guidance_scale, "style": style, "steps": sampling_steps}
    done = export_lora(pipe, chosen, output, prompts[:PREDICTIONS], **settings, **call)
    ui.say(f"{done.layers} layers at scale {guidance_scale:g} are in {done.path}; use it at strength 1 and CFG 1")
    ui.say(f"it recovers {done.kept:.1%} of guidance, the whole adapter {done.whole:.1%}")
