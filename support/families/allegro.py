"""Allegro."""

import diffusers
from diffusers import AllegroTransformer3DModel, AutoencoderKLAllegro, EulerAncestralDiscreteScheduler

from support import parts
from support.case import STEPS, Case


def transformer() -> AllegroTransformer3DModel:
    return AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, cross_attention_dim=24, sample_height=4,
        sample_width=4, sample_frames=2, caption_channels=parts.WIDTH,
    )  # fmt: skip


def autoencoder() -> AutoencoderKLAllegro:
    return AutoencoderKLAllegro(block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2, sample_size=32)


def AllegroPipeline() -> Case:
    pipe = diffusers.AllegroPipeline(
        tokenizer=parts.tokenizer(), text_encoder=parts.t5(), vae=autoencoder(), transformer=transformer(),
        scheduler=EulerAncestralDiscreteScheduler(),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "num_frames": 8, "height": 32, "width": 32, "max_sequence_length": 16, "clean_caption": False,
            "output_type": "latent",
        },
    )  # fmt: skip
