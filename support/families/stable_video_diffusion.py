"""Stable Video Diffusion."""

import diffusers
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel

from support import parts
from support.case import STEPS, Case


def unet() -> UNetSpatioTemporalConditionModel:
    return UNetSpatioTemporalConditionModel(
        sample_size=16, block_out_channels=(32, 64), num_attention_heads=(2, 4), layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), cross_attention_dim=parts.WIDTH,
        addition_time_embed_dim=32, projection_class_embeddings_input_dim=96, num_frames=2,
    )  # fmt: skip


def vae() -> AutoencoderKLTemporalDecoder:
    return AutoencoderKLTemporalDecoder(down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 32))


def StableVideoDiffusionPipeline() -> Case:
    return Case(
        pipe=diffusers.StableVideoDiffusionPipeline(
            unet=unet(), vae=vae(), image_encoder=parts.clip_vision(projection=True),
            feature_extractor=parts.clip_pictures(),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
                timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0,
            ),
        ),
        call={
            "image": parts.picture(), "height": 32, "width": 32, "num_frames": 2, "num_inference_steps": STEPS,
            "min_guidance_scale": 2.0, "max_guidance_scale": 6.0, "output_type": "latent",
        },
    )  # fmt: skip
