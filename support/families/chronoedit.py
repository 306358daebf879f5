"""ChronoEdit."""

import diffusers
from diffusers import ChronoEditTransformer3DModel

from support import parts
from support.case import Case
from support.families import wan


def ChronoEditPipeline() -> Case:
    denoiser = ChronoEditTransformer3DModel(
        **wan.SHAPE, in_channels=36, image_dim=parts.WIDTH, added_kv_proj_dim=24
    ).eval()
    parts_of = {**wan.text(), **wan.vision(), "vae": wan.vae(), "scheduler": wan.scheduler(), "transformer": denoiser}
    pipe = diffusers.ChronoEditPipeline(**parts_of)
    return Case(pipe=pipe, call={**wan.encoded(pipe), "num_frames": 5, "image": parts.photo()})
