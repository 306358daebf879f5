"""Kandinsky 2.2."""

from typing import Any

import diffusers
from diffusers import DDPMScheduler

from support import parts
from support.case import Case
from support.families import kandinsky
from support.families.kandinsky import COMBINED, DECODE, PARTIAL, PRIOR, embeddings, hole, image, prior_of_combined


def components(in_channels: int = 4, *, added: str = "image", blocks: int = 2) -> dict[str, Any]:
    return {
        "unet": kandinsky.unet(in_channels, encoder_hid_dim_type="image_proj", addition_embed_type=added),
        "movq": kandinsky.movq(blocks),
        "scheduler": DDPMScheduler(variance_type="learned_range", clip_sample=False),
    }  # fmt: skip


LATENT = {"output_type": "latent"}
# The hint is encoded 8 times smaller, which the latents have to match.
HINTED = {**DECODE, "height": 64, "width": 64}


def hinted() -> dict[str, Any]:
    return components(in_channels=8, added="image_hint", blocks=4)


def hint() -> dict[str, Any]:
    return {"hint": parts.picture(64, seed=1)}


def KandinskyV22PriorPipeline() -> Case:
    return Case(pipe=diffusers.KandinskyV22PriorPipeline(**kandinsky.prior()), call=PRIOR)


def KandinskyV22PriorEmb2EmbPipeline() -> Case:
    pipe = diffusers.KandinskyV22PriorEmb2EmbPipeline(**kandinsky.prior())
    return Case(pipe=pipe, call={**PRIOR, **image(), **PARTIAL})


def KandinskyV22Pipeline() -> Case:
    return Case(pipe=diffusers.KandinskyV22Pipeline(**components()), call={**DECODE, **embeddings(), **LATENT})


def KandinskyV22Img2ImgPipeline() -> Case:
    pipe = diffusers.KandinskyV22Img2ImgPipeline(**components())
    return Case(pipe=pipe, call={**DECODE, **embeddings(), **image(), **PARTIAL, **LATENT})


def KandinskyV22InpaintPipeline() -> Case:
    pipe = diffusers.KandinskyV22InpaintPipeline(**components(in_channels=9))
    return Case(pipe=pipe, call={**DECODE, **embeddings(), **hole(), **LATENT})


def KandinskyV22ControlnetPipeline() -> Case:
    return Case(pipe=diffusers.KandinskyV22ControlnetPipeline(**hinted()), call={**HINTED, **embeddings(), **hint()})


def KandinskyV22ControlnetImg2ImgPipeline() -> Case:
    pipe = diffusers.KandinskyV22ControlnetImg2ImgPipeline(**hinted())
    return Case(pipe=pipe, call={**HINTED, **embeddings(), **hint(), "image": parts.picture(64), **PARTIAL})


def KandinskyV22CombinedPipeline() -> Case:
    pipe = diffusers.KandinskyV22CombinedPipeline(**components(), **prior_of_combined())
    return Case(pipe=pipe, call={**COMBINED, **LATENT})


def KandinskyV22Img2ImgCombinedPipeline() -> Case:
    pipe = diffusers.KandinskyV22Img2ImgCombinedPipeline(**components(), **prior_of_combined())
    return Case(pipe=pipe, call={**COMBINED, **image(), **PARTIAL, **LATENT})


def KandinskyV22InpaintCombinedPipeline() -> Case:
    pipe = diffusers.KandinskyV22InpaintCombinedPipeline(**components(in_channels=9), **prior_of_combined())
    return Case(pipe=pipe, call={**COMBINED, **hole(), **LATENT})
