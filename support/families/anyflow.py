"""AnyFlow."""

from typing import Any

import diffusers
from diffusers import FlowMapEulerDiscreteScheduler

from support.case import Case
from support.families import wan


def components() -> dict[str, Any]:
    return {**wan.text(), "vae": wan.vae(), "scheduler": FlowMapEulerDiscreteScheduler(shift=5.0)}


def AnyFlowPipeline() -> Case:
    denoiser = diffusers.AnyFlowTransformer3DModel(**wan.SHAPE)
    pipe = diffusers.AnyFlowPipeline(**components(), transformer=denoiser)
    return Case(pipe=pipe, call={**wan.CALL, "num_frames": 5})


def AnyFlowFARPipeline() -> Case:
    denoiser = diffusers.AnyFlowFARTransformer3DModel(**wan.SHAPE, full_chunk_limit=2, chunk_partition=(1, 1))
    pipe = diffusers.AnyFlowFARPipeline(**components(), transformer=denoiser)
    return Case(pipe=pipe, call={**wan.CALL, "num_frames": 5})
