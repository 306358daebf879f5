"""JoyImage editing."""

from typing import Any

import diffusers
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
)

from support import parts
from support.case import STEPS, Case
from support.families.bria_fibo import autoencoder
from support.families.qwenimage import PROMPT

LATENTS = 4
DENOISER = {
    "in_channels": LATENTS, "hidden_size": 32, "num_attention_heads": 2, "text_dim": parts.WIDTH, "num_layers": 2,
    "rope_dim_list": [4, 4, 8], "mlp_width_ratio": 2.0,
}  # fmt: skip
CALL = {
    "prompt": PROMPT, "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 4.0,
    "output_type": "latent",
}  # fmt: skip


def components() -> dict[str, Any]:
    # the pipelines resize every picture to about 1024 x 1024: the autoencoder shrinks by 128
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=4.0), "vae": autoencoder(LATENTS, patch=16, halvings=3),
        "text_encoder": parts.vision_language("Qwen3VL"), "tokenizer": parts.vision_tokenizer(),
        "processor": parts.vision_processor(patch=16),
    }  # fmt: skip


def JoyImageEditPipeline() -> Case:
    denoiser = JoyImageEditTransformer3DModel(**DENOISER)
    return Case(
        pipe=diffusers.JoyImageEditPipeline(**components(), transformer=denoiser),
        call={**CALL, "image": parts.photo()},
    )


def JoyImageEditPlusPipeline() -> Case:
    denoiser = JoyImageEditPlusTransformer3DModel(**DENOISER)
    return Case(
        pipe=diffusers.JoyImageEditPlusPipeline(**components(), transformer=denoiser),
        call={**CALL, "images": [parts.photo()], "height": 512, "width": 512},
    )
