"""Stable Audio."""

import diffusers
from diffusers import (
    AutoencoderOobleck,
    EDMDPMSolverMultistepScheduler,
    StableAudioDiTModel,
    StableAudioProjectionModel,
)

from support import parts
from support.case import STEPS, Case


def transformer() -> StableAudioDiTModel:
    return StableAudioDiTModel(
        sample_size=8, in_channels=8, out_channels=8, num_layers=2, num_attention_heads=4, attention_head_dim=8,
        num_key_value_attention_heads=2, cross_attention_dim=parts.WIDTH, cross_attention_input_dim=parts.WIDTH,
        time_proj_dim=16, global_states_input_dim=2 * parts.WIDTH,
    )  # fmt: skip


def vae() -> AutoencoderOobleck:
    """Return an autoencoder of sound that makes four latents of a second."""
    return AutoencoderOobleck(
        encoder_hidden_size=8, downsampling_ratios=[2, 4], channel_multiples=[1, 2], decoder_channels=8,
        decoder_input_channels=8, sampling_rate=32,
    )  # fmt: skip


def StableAudioPipeline() -> Case:
    return Case(
        pipe=diffusers.StableAudioPipeline(
            transformer=transformer(), vae=vae(), text_encoder=parts.t5(), tokenizer=parts.tokenizer(),
            projection_model=StableAudioProjectionModel(parts.WIDTH, parts.WIDTH, min_value=0, max_value=32),
            scheduler=EDMDPMSolverMultistepScheduler(
                sigma_min=0.3, sigma_max=500.0, sigma_data=1.0, sigma_schedule="exponential",
                prediction_type="v_prediction",
            ),
        ),
        call={"prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent"},
    )  # fmt: skip
