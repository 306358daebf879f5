"""AltDiffusion."""

from typing import Any

import diffusers
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)

from support import parts
from support.case import STEPS, Case
from support.families import stable_diffusion


def text_encoder() -> RobertaSeriesModelWithTransformation:
    config = RobertaSeriesConfig(
        vocab_size=parts.VOCABULARY, hidden_size=parts.WIDTH, project_dim=parts.WIDTH, intermediate_size=37,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return RobertaSeriesModelWithTransformation(config)


def components() -> dict[str, Any]:
    return {
        **stable_diffusion.unchecked(), "text_encoder": text_encoder(), "tokenizer": parts.roberta_tokenizer(),
    }  # fmt: skip


CALL = {"prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent"}


def AltDiffusionPipeline() -> Case:
    return Case(pipe=diffusers.AltDiffusionPipeline(**components()), call={**CALL, "height": 32, "width": 32})


def AltDiffusionImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.AltDiffusionImg2ImgPipeline(**components()),
        call={**CALL, "image": parts.picture(), "num_inference_steps": STEPS + 1, "strength": 0.8},
    )
