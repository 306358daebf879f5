"""Stable Diffusion XL."""

from typing import Any

import diffusers
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

from support import parts
from support.case import STEPS, Case

SIZE_IDS = 8  # channels of the embedding of each of the six numbers about sizes and crops


def unet(in_channels: int = 4, *, cross_attention_dim: int = 2 * parts.WIDTH, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=in_channels, out_channels=4, layers_per_block=1, block_out_channels=(16, 32),
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4), use_linear_projection=True, cross_attention_dim=cross_attention_dim,
        addition_embed_type="text_time", addition_time_embed_dim=SIZE_IDS,
        projection_class_embeddings_input_dim=6 * SIZE_IDS + parts.WIDTH, **options,
    )  # fmt: skip


def components(**options: Any) -> dict[str, Any]:
    return {
        "unet": unet(**options), "scheduler": EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        "vae": parts.autoencoder(), "text_encoder": parts.clip_text(), "tokenizer": parts.tokenizer(),
        "text_encoder_2": parts.clip_text(projection=True), "tokenizer_2": parts.tokenizer(),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "output_type": "latent",
}  # fmt: skip
SIZE = {"height": 32, "width": 32}


def StableDiffusionXLPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionXLPipeline(**components()), call={**CALL, **SIZE})


def StableDiffusionXLImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLImg2ImgPipeline(**components()),
        call={**CALL, "image": parts.picture(), "strength": 0.7},
    )


def StableDiffusionXLInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLInpaintPipeline(**components()),
        call={**CALL, **SIZE, "image": parts.picture(), "mask_image": parts.picture(channels=1), "strength": 1.0},
    )


def StableDiffusionXLInstructPix2PixPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLInstructPix2PixPipeline(**components(in_channels=8)),
        call={**CALL, **SIZE, "image": parts.picture(), "image_guidance_scale": 1.5},
    )
