"""SkyReels V2."""

from typing import Any

import diffusers
from diffusers import SkyReelsV2Transformer3DModel

from support import parts
from support.case import Case
from support.families import wan


def components(**options: Any) -> dict[str, Any]:
    shape = {"in_channels": 16, **wan.SHAPE, **options}
    denoiser = SkyReelsV2Transformer3DModel(**shape).eval()
    return {**wan.text(), "vae": wan.vae(), "scheduler": wan.scheduler(8.0), "transformer": denoiser}


def SkyReelsV2Pipeline() -> Case:
    pipe = diffusers.SkyReelsV2Pipeline(**components())
    return Case(pipe=pipe, call={**wan.encoded(pipe), "num_frames": 5})


def SkyReelsV2ImageToVideoPipeline() -> Case:
    parts_of = components(in_channels=36, image_dim=parts.WIDTH, added_kv_proj_dim=24)
    parts_of["image_encoder"] = parts.clip_vision(projection=True)
    parts_of["image_processor"] = parts.clip_pictures()
    pipe = diffusers.SkyReelsV2ImageToVideoPipeline(**parts_of)
    return Case(pipe=pipe, call={**wan.encoded(pipe), "num_frames": 5, "image": parts.photo()})


def SkyReelsV2DiffusionForcingPipeline() -> Case:
    pipe = diffusers.SkyReelsV2DiffusionForcingPipeline(**components(inject_sample_info=True))
    return Case(pipe=pipe, call={**wan.encoded(pipe), "num_frames": 9})


def SkyReelsV2DiffusionForcingImageToVideoPipeline() -> Case:
    pipe = diffusers.SkyReelsV2DiffusionForcingImageToVideoPipeline(**components())
    return Case(pipe=pipe, call={**wan.encoded(pipe), "num_frames": 9, "image": parts.photo()})


def SkyReelsV2DiffusionForcingVideoToVideoPipeline() -> Case:
    pipe = diffusers.SkyReelsV2DiffusionForcingVideoToVideoPipeline(**components())
    frames = {"num_frames": 17, "base_num_frames": 9, "overlap_history": 5}
    return Case(pipe=pipe, call={**wan.encoded(pipe), **frames, "video": parts.film(5)})
