"""LongCat-Image."""

from typing import Any

import diffusers
from diffusers import AutoencoderKL, LongCatImageTransformer2DModel

from support import parts
from support.case import STEPS, Case
from support.families import flux
from support.families.qwenimage import PROMPT

LATENTS = 16  # a constant of the pipelines
CALL = {
    "prompt": PROMPT, "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 4.5,
    "output_type": "latent",
}  # fmt: skip


def autoencoder(halvings: int) -> AutoencoderKL:
    blocks = halvings + 1
    return AutoencoderKL(
        latent_channels=LATENTS, norm_num_groups=2, block_out_channels=(4,) * blocks, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * blocks, up_block_types=("UpDecoderBlock2D",) * blocks,
        shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False,
    ).eval()  # fmt: skip


def components(halvings: int = 1) -> dict[str, Any]:
    sizes = {**flux.DENOISER, "in_channels": 4 * LATENTS}
    return {
        "transformer": LongCatImageTransformer2DModel(**sizes, pooled_projection_dim=parts.WIDTH),
        "scheduler": flux.scheduler(), "vae": autoencoder(halvings),
        "text_encoder": parts.vision_language("Qwen2_5_VL"), "tokenizer": parts.vision_tokenizer(),
        "text_processor": parts.vision_processor(),
    }  # fmt: skip


def LongCatImagePipeline() -> Case:
    return Case(
        pipe=diffusers.LongCatImagePipeline(**components()),
        call={**CALL, "height": 16, "width": 16, "enable_prompt_rewrite": False},
    )


def LongCatImageEditPipeline() -> Case:
    # the pipeline resizes every picture to 1024 x 1024
    return Case(
        pipe=diffusers.LongCatImageEditPipeline(**components(halvings=6)), call={**CALL, "image": parts.photo()}
    )
