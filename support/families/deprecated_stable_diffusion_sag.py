"""Self-attention guidance."""

import diffusers

from support.case import Case
from support.families import stable_diffusion as sd


def StableDiffusionSAGPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionSAGPipeline(**sd.unchecked()), call={**sd.CALL, **sd.SIZE, "sag_scale": 0.75}
    )
