"""Lumina-Image 2."""

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Transformer2DModel

from support import parts
from support.case import STEPS, Case


def transformer() -> Lumina2Transformer2DModel:
    return Lumina2Transformer2DModel(
        sample_size=4, in_channels=4, hidden_size=32, num_layers=2, num_refiner_layers=1, num_attention_heads=2,
        num_kv_heads=1, multiple_of=16, axes_dim_rope=(4, 6, 6), axes_lens=(64, 32, 32), cap_feat_dim=parts.WIDTH,
    )  # fmt: skip


def Lumina2Pipeline() -> Case:
    pipe = diffusers.Lumina2Pipeline(
        transformer=transformer(), scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=parts.autoencoder(blocks=4), text_encoder=parts.language_model("Gemma2"),
        tokenizer=parts.tokenizer(64),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "height": 32, "width": 32, "system_prompt": "draw", "max_sequence_length": 32, "output_type": "latent",
        },
    )  # fmt: skip
