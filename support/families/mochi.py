"""Mochi."""

import diffusers
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler, MochiTransformer3DModel

from support import parts
from support.case import STEPS, Case


def transformer() -> MochiTransformer3DModel:
    return MochiTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=12,
        text_embed_dim=parts.WIDTH, time_embed_dim=16, max_sequence_length=16,
    )  # fmt: skip


def autoencoder() -> AutoencoderKLMochi:
    return AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32), decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip


def MochiPipeline() -> Case:
    pipe = diffusers.MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=autoencoder(), text_encoder=parts.t5(),
        tokenizer=parts.tokenizer(), transformer=transformer(),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "num_frames": 7, "height": 32, "width": 32, "max_sequence_length": 16, "output_type": "latent",
        },
    )  # fmt: skip
