"""Stable Diffusion 3 with ControlNet."""

from typing import Any

import diffusers
from diffusers import SD3ControlNetModel

from support import parts
from support.case import Case
from support.families import stable_diffusion_3 as sd3


def components(extra_channels: int = 0) -> dict[str, Any]:
    controlnet = SD3ControlNetModel(num_layers=1, extra_conditioning_channels=extra_channels, **sd3.SHAPE)
    return {**sd3.components(), "controlnet": controlnet}


CALL = {**sd3.CALL, **sd3.SIZE, "control_image": parts.picture()}


def StableDiffusion3ControlNetPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusion3ControlNetPipeline(**components()), call=CALL)


def StableDiffusion3ControlNetInpaintingPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusion3ControlNetInpaintingPipeline(**components(extra_channels=1)),
        call={**CALL, "control_mask": parts.picture(channels=1)},
    )
