"""Latte."""

import diffusers
from diffusers import DDIMScheduler, LatteTransformer3DModel

from support import parts
from support.case import STEPS, Case


def transformer() -> LatteTransformer3DModel:
    return LatteTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=16, attention_bias=True, sample_size=8, patch_size=2, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False,
        norm_eps=1e-6, caption_channels=parts.WIDTH, video_length=2,
    )  # fmt: skip


def LattePipeline() -> Case:
    pipe = diffusers.LattePipeline(
        tokenizer=parts.tokenizer(128), text_encoder=parts.t5(), vae=parts.autoencoder(), transformer=transformer(),
        scheduler=DDIMScheduler(clip_sample=False),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "video_length": 2, "height": 16, "width": 16, "clean_caption": False, "output_type": "latent",
        },
    )  # fmt: skip
