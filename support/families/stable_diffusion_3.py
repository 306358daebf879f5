"""Stable Diffusion 3."""

from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from support import parts
from support.case import STEPS, Case

CHANNELS = 16  # of the latents: the pipelines check this number
LAYERS = 2
SHAPE = {
    "sample_size": 16, "patch_size": 2, "in_channels": CHANNELS, "out_channels": CHANNELS, "attention_head_dim": 8,
    "num_attention_heads": 4, "joint_attention_dim": parts.WIDTH, "caption_projection_dim": 32,
    "pooled_projection_dim": parts.WIDTH, "pos_embed_max_size": 16,
}  # fmt: skip


def components() -> dict[str, Any]:
    half = parts.WIDTH // 2  # the two CLIP encoders are put side by side
    return {
        "transformer": SD3Transformer2DModel(num_layers=LAYERS, **SHAPE),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": parts.autoencoder(CHANNELS, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        "text_encoder": parts.clip_text(half, projection=True), "tokenizer": parts.tokenizer(),
        "text_encoder_2": parts.clip_text(half, projection=True), "tokenizer_2": parts.tokenizer(),
        "text_encoder_3": parts.t5(), "tokenizer_3": parts.tokenizer(),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip
SIZE = {"height": 32, "width": 32}


def StableDiffusion3Pipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusion3Pipeline(**components()),
        call={**CALL, **SIZE, "skip_guidance_layers": [0], "skip_layer_guidance_stop": 1.0},
    )


def StableDiffusion3Img2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusion3Img2ImgPipeline(**components()),
        call={**CALL, **SIZE, "image": parts.picture(), "strength": 0.6},
    )


def StableDiffusion3InpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusion3InpaintPipeline(**components()),
        call={**CALL, **SIZE, "image": parts.picture(), "mask_image": parts.picture(channels=1), "strength": 0.6},
    )
