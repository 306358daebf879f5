"""DiffEdit."""

import diffusers
import torch
from diffusers import DDIMInverseScheduler

from support.case import STEPS, Case
from support.families import stable_diffusion as sd


def StableDiffusionDiffEditPipeline() -> Case:
    pieces = {**sd.unchecked(), "inverse_scheduler": DDIMInverseScheduler(**sd.BETAS, clip_sample=False)}
    latents = torch.randn(1, STEPS, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    return Case(
        pipe=diffusers.StableDiffusionDiffEditPipeline(**pieces),
        call={
            **sd.CALL, "num_inference_steps": STEPS + 1, "inpaint_strength": 0.8, "mask_image": sd.mask(16),
            "image_latents": latents, "eta": 1.0,
        },
    )  # fmt: skip
