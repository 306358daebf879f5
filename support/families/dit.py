"""DiT."""

import diffusers
from diffusers import DDIMScheduler, DiTTransformer2DModel

from support import parts
from support.case import STEPS, Case


def transformer() -> DiTTransformer2DModel:
    return DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, in_channels=4, out_channels=8, sample_size=8,
    )  # fmt: skip


def DiTPipeline() -> Case:
    return Case(
        pipe=diffusers.DiTPipeline(
            transformer=transformer(), vae=parts.autoencoder(), scheduler=DDIMScheduler(clip_sample=False)
        ),
        call={"class_labels": [3], "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "pt"},
    )
