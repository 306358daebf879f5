"""Qwen-Image 2.1."""

import diffusers
from diffusers import AutoencoderKLQwenImage21, QwenImage21Transformer2DModel

from support import parts
from support.case import Case
from support.families import flux, qwenimage

LATENTS = 4


def QwenImage21Pipeline() -> Case:
    denoiser = QwenImage21Transformer2DModel(
        in_channels=LATENTS, out_channels=LATENTS, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        context_in_dim=parts.WIDTH, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=4, z_dim=LATENTS, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False] * 4, latents_mean=[0.1] * LATENTS, latents_std=[1.5] * LATENTS,
    )  # fmt: skip
    pipe = diffusers.QwenImage21Pipeline(
        transformer=denoiser, scheduler=flux.scheduler(), vae=vae, text_encoder=parts.vision_language("Qwen3VL"),
        processor=parts.vision_processor(patch=16),
    )  # fmt: skip
    return Case(pipe=pipe, call={**qwenimage.CALL, "height": 64, "width": 64})
