"""Sana Video."""

from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, SanaVideoTransformer3DModel

from support import parts
from support.case import Case
from support.families import sana, wan


def transformer() -> SanaVideoTransformer3DModel:
    return SanaVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, num_cross_attention_heads=2,
        cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=parts.WIDTH, rope_max_seq_len=32,
    ).eval()  # fmt: skip


def components() -> dict[str, Any]:
    return {
        "tokenizer": parts.tokenizer(), "text_encoder": parts.language_model("Gemma2", layers=2),
        "transformer": transformer(), "vae": wan.vae(),
    }  # fmt: skip


CALL = {**sana.CALL, "frames": 5}


def SanaVideoPipeline() -> Case:
    return Case(pipe=diffusers.SanaVideoPipeline(**components(), scheduler=sana.scheduler(8.0)), call=CALL)


def SanaImageToVideoPipeline() -> Case:
    return Case(
        pipe=diffusers.SanaImageToVideoPipeline(**components(), scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0)),
        call={**CALL, "frames": 9, "image": parts.photo()},
    )
