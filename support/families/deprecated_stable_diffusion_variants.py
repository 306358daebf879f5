"""Old variants of Stable Diffusion."""

import diffusers
import torch
from diffusers import DDIMInverseScheduler, DDPMParallelScheduler

from support import parts
from support.case import Case
from support.families import stable_diffusion as sd


def CycleDiffusionPipeline() -> Case:
    return Case(
        pipe=diffusers.CycleDiffusionPipeline(**sd.unchecked()),
        call={
            **sd.CALL, **sd.STRENGTH, "source_prompt": "a grey fox", "image": parts.photo(), "eta": 0.5,
            "source_guidance_scale": 2.0,
        },
    )  # fmt: skip


def StableDiffusionInpaintPipelineLegacy() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionInpaintPipelineLegacy(**sd.unchecked()),
        call={**sd.CALL, **sd.STRENGTH, "image": parts.photo(), "mask_image": parts.photo(seed=1)},
    )


def StableDiffusionModelEditingPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionModelEditingPipeline(**sd.unchecked()), call={**sd.CALL, **sd.SIZE})


def StableDiffusionParadigmsPipeline() -> Case:
    pieces = {**sd.unchecked(), "scheduler": DDPMParallelScheduler(**sd.BETAS, clip_sample=False)}
    return Case(pipe=diffusers.StableDiffusionParadigmsPipeline(**pieces), call={**sd.CALL, **sd.SIZE})


def StableDiffusionPix2PixZeroPipeline() -> Case:
    pieces = {
        **sd.unchecked(), "inverse_scheduler": DDIMInverseScheduler(**sd.BETAS, clip_sample=False),
        "caption_generator": None, "caption_processor": None,
    }  # fmt: skip
    source, target = (torch.randn(2, 16, parts.WIDTH, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    return Case(
        pipe=diffusers.StableDiffusionPix2PixZeroPipeline(**pieces),
        call={**sd.CALL, **sd.SIZE, "source_embeds": source, "target_embeds": target},
    )
