"""MusicLDM."""

from typing import Any

import diffusers
import torch
import transformers

from support import parts
from support.case import Case
from support.families.deprecated_audioldm import CALL, clap, scheduler, unet, vae, vocoder


def encoded() -> dict[str, Any]:
    """Return encoded prompts: the pipeline does not know what its text encoder answers by now."""
    draw = torch.Generator().manual_seed(0)
    names = ("prompt_embeds", "negative_prompt_embeds")
    return {"prompt": None, **{name: torch.randn(1, parts.WIDTH, generator=draw) for name in names}}


def MusicLDMPipeline() -> Case:
    return Case(
        pipe=diffusers.MusicLDMPipeline(
            unet=unet(), vae=vae(), vocoder=vocoder(), scheduler=scheduler(), text_encoder=clap(),
            tokenizer=parts.roberta_tokenizer(), feature_extractor=transformers.ClapFeatureExtractor(),
        ),
        call={**CALL, **encoded(), "output_type": "latent"},
    )  # fmt: skip
