"""CogView4."""

from typing import Any

import diffusers
from diffusers import CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler

from support import parts
from support.case import STEPS, Case

LATENTS = 4


def transformer(in_channels: int) -> CogView4Transformer2DModel:
    return CogView4Transformer2DModel(
        in_channels=in_channels, out_channels=LATENTS, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        text_embed_dim=parts.WIDTH, time_embed_dim=16, condition_dim=4, pos_embed_max_size=8, sample_size=8,
        rope_axes_dim=(16, 16),
    )  # fmt: skip


def components(in_channels: int) -> dict[str, Any]:
    return {
        "tokenizer": parts.tokenizer(), "text_encoder": parts.language_model("Glm"),
        "vae": parts.autoencoder(LATENTS), "transformer": parts.lively(transformer(in_channels)),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.25, max_shift=0.75, time_shift_type="linear"
        ),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": 16, "width": 16, "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip


def CogView4Pipeline() -> Case:
    return Case(pipe=diffusers.CogView4Pipeline(**components(LATENTS)), call=CALL)


def CogView4ControlPipeline() -> Case:
    return Case(
        pipe=diffusers.CogView4ControlPipeline(**components(2 * LATENTS)),
        call={**CALL, "control_image": parts.picture(16)},
    )
