"""Ovis-Image."""

import diffusers
from diffusers import OvisImageTransformer2DModel

from support import parts
from support.case import Case
from support.families import flux


def OvisImagePipeline() -> Case:
    pipe = diffusers.OvisImagePipeline(
        transformer=OvisImageTransformer2DModel(**{**flux.DENOISER, "out_channels": 4 * flux.LATENTS}),
        scheduler=flux.scheduler(),
        vae=flux.autoencoder(),
        text_encoder=parts.language_model("Qwen3"),
        tokenizer=parts.tokenizer(512),
    )
    return Case(
        pipe=pipe,
        call={**flux.CALL, "negative_prompt": "blurry", "guidance_scale": 5.0, "max_sequence_length": 160},
    )
