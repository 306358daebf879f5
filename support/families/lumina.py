"""Lumina-Next."""

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, LuminaNextDiT2DModel

from support import parts
from support.case import STEPS, Case


def transformer() -> LuminaNextDiT2DModel:
    return LuminaNextDiT2DModel(
        sample_size=4, in_channels=4, hidden_size=32, num_layers=2, num_attention_heads=4, num_kv_heads=2,
        multiple_of=16, cross_attention_dim=parts.WIDTH,
    )  # fmt: skip


def LuminaPipeline() -> Case:
    pipe = diffusers.LuminaPipeline(
        transformer=transformer(), scheduler=FlowMatchEulerDiscreteScheduler(), vae=parts.autoencoder(blocks=4),
        text_encoder=parts.language_model("Gemma"), tokenizer=parts.tokenizer(),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "height": 32, "width": 32, "max_sequence_length": 16, "clean_caption": False, "output_type": "latent",
        },
    )  # fmt: skip
