"""Helios."""

from typing import Any

import diffusers
from diffusers import HeliosScheduler, HeliosTransformer3DModel

from support.case import Case
from support.families import wan


def transformer() -> HeliosTransformer3DModel:
    shape = {name: value for name, value in wan.SHAPE.items() if name != "rope_max_seq_len"}
    return HeliosTransformer3DModel(**shape, rope_dim=(4, 4, 4)).eval()


def components(**options: Any) -> dict[str, Any]:
    return {**wan.text(), "vae": wan.vae(), "transformer": transformer(), "scheduler": HeliosScheduler(**options)}


CHUNK = {"num_frames": 5, "num_latent_frames_per_chunk": 2, "history_sizes": [4, 2, 1]}


def HeliosPipeline() -> Case:
    pipe = diffusers.HeliosPipeline(**components(stages=1, stage_range=[0, 1]))
    return Case(pipe=pipe, call={**wan.encoded(pipe), **CHUNK})


def HeliosPyramidPipeline() -> Case:
    # With the default gamma of 1 / 3 the covariance of the noise between stages is singular in float32.
    pipe = diffusers.HeliosPyramidPipeline(**components(gamma=0.25))
    call = {**wan.encoded(pipe), **CHUNK, "pyramid_num_inference_steps_list": [2, 2, 2], "height": 64, "width": 64}
    del call["num_inference_steps"]
    return Case(pipe=pipe, call=call)
