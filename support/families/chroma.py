"""Chroma."""

from typing import Any

import diffusers
from diffusers import ChromaTransformer2DModel

from support import parts
from support.case import Case
from support.families import flux

CALL = {**flux.CALL, "negative_prompt": "blurry", "guidance_scale": 5.0}


def components() -> dict[str, Any]:
    denoiser = ChromaTransformer2DModel(
        **flux.DENOISER, approximator_num_channels=16, approximator_hidden_dim=32, approximator_layers=2
    )
    return {
        "transformer": denoiser, "scheduler": flux.scheduler(), "vae": flux.autoencoder(), "text_encoder": parts.t5(),
        "tokenizer": parts.tokenizer(24),
    }  # fmt: skip


def ChromaPipeline() -> Case:
    return Case(pipe=diffusers.ChromaPipeline(**components()), call=CALL)


def ChromaImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.ChromaImg2ImgPipeline(**components()),
        call={**CALL, "image": parts.picture(flux.SIZE), "strength": 1.0},
    )
