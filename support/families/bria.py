"""Bria 3."""

import diffusers
from diffusers import BriaTransformer2DModel

from support import parts
from support.case import Case
from support.families import flux


def BriaPipeline() -> Case:
    pipe = diffusers.BriaPipeline(
        transformer=BriaTransformer2DModel(**flux.DENOISER), scheduler=flux.scheduler(), vae=flux.autoencoder(),
        text_encoder=parts.t5(), tokenizer=parts.tokenizer(24),
    )  # fmt: skip
    return Case(pipe=pipe, call={**flux.CALL, "negative_prompt": "blurry", "guidance_scale": 5.0})
