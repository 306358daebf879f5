"""HunyuanImage and its refiner."""

from typing import Any

import diffusers
from diffusers import (
    AdaptiveProjectedMixGuidance,
    AutoencoderKLHunyuanImage,
    AutoencoderKLHunyuanImageRefiner,
    FlowMatchEulerDiscreteScheduler,
    HunyuanImageTransformer2DModel,
)

from support import parts
from support.case import STEPS, Case

LATENTS = 4


def transformer(**options: Any) -> HunyuanImageTransformer2DModel:
    made = HunyuanImageTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=2, num_refiner_layers=1,
        text_embed_dim=parts.WIDTH, **options,
    )  # fmt: skip
    return parts.lively(made)


def components() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=4.0), "tokenizer": parts.tokenizer(64),
        "text_encoder": parts.vision_language("Qwen2_5_VL", layers=3),
        "guider": AdaptiveProjectedMixGuidance(guidance_scale=3.5),
    }  # fmt: skip


def shortened(pipe: Any) -> Any:
    """Give the pipeline a short instruction, and so short sequences."""
    pipe.prompt_template_encode = "draw: {}"
    pipe.prompt_template_encode_start_idx = 6
    pipe.tokenizer_max_length = 32
    return pipe


CALL = {
    "prompt": 'a red fox says "hello"', "negative_prompt": "blurry", "num_inference_steps": STEPS, "height": 32,
    "width": 32, "output_type": "latent",
}  # fmt: skip


def HunyuanImagePipeline() -> Case:
    vae = AutoencoderKLHunyuanImage(
        in_channels=3, out_channels=3, latent_channels=LATENTS, block_out_channels=(32, 32, 32, 32),
        layers_per_block=1, spatial_compression_ratio=8, sample_size=32, scaling_factor=0.75,
    ).eval()  # fmt: skip
    denoiser = transformer(
        in_channels=LATENTS, out_channels=LATENTS, text_embed_2_dim=parts.WIDTH, rope_axes_dim=(6, 6)
    )
    pipe = diffusers.HunyuanImagePipeline(
        **components(), vae=vae, transformer=denoiser, text_encoder_2=parts.t5(), tokenizer_2=parts.tokenizer()
    )
    pipe.tokenizer_2_max_length = 16
    return Case(pipe=shortened(pipe), call=CALL)


def HunyuanImageRefinerPipeline() -> Case:
    vae = AutoencoderKLHunyuanImageRefiner(
        latent_channels=LATENTS, block_out_channels=(32, 32, 32, 32), layers_per_block=1, spatial_compression_ratio=8
    ).eval()
    denoiser = transformer(
        in_channels=4 * LATENTS, out_channels=2 * LATENTS, patch_size=(1, 1, 1), rope_axes_dim=(4, 4, 4)
    )
    pipe = diffusers.HunyuanImageRefinerPipeline(**components(), vae=vae, transformer=denoiser)
    return Case(pipe=shortened(pipe), call={**CALL, "image": parts.photo()})
