"""MultiDiffusion panoramas."""

import diffusers

from support import parts
from support.case import Case
from support.families import stable_diffusion as sd


def StableDiffusionPanoramaPipeline() -> Case:
    pieces = {**sd.unchecked(), "vae": parts.autoencoder(blocks=4)}
    return Case(
        pipe=diffusers.StableDiffusionPanoramaPipeline(**pieces),
        call={**sd.CALL, "height": 64, "width": 576},  # the smallest width with two views
    )
