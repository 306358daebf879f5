"""Semantic guidance."""

import diffusers

from support.case import Case
from support.families import stable_diffusion as sd


def SemanticStableDiffusionPipeline() -> Case:
    return Case(
        pipe=diffusers.SemanticStableDiffusionPipeline(**sd.unchecked()),
        call={
            **sd.CALL, **sd.SIZE, "editing_prompt": "snow", "edit_guidance_scale": 5.0, "edit_warmup_steps": 0,
            "edit_threshold": 0.5,
        },
    )  # fmt: skip
