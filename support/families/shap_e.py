"""Shap-E."""

from typing import Any

import diffusers
from diffusers import HeunDiscreteScheduler, PriorTransformer
from diffusers.pipelines.shap_e import ShapERenderer

from support import parts
from support.case import STEPS, Case

LATENT = 16


def prior(**options: Any) -> PriorTransformer:
    return PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=LATENT, num_embeddings=32,
        additional_embeddings=0, time_embed_act_fn="gelu", norm_in_type="layer", encoder_hid_proj_type=None,
        added_emb_type=None, time_embed_dim=64, embedding_proj_dim=parts.WIDTH, clip_embed_dim=2 * LATENT, **options,
    )  # fmt: skip


def components(**options: Any) -> dict[str, Any]:
    shapes = ((8, 93), (8, 8), (8, 8), (8, 8))
    return {
        "prior": prior(**options), "shap_e_renderer": ShapERenderer(param_shapes=shapes, d_latent=LATENT, d_hidden=8),
        "scheduler": HeunDiscreteScheduler(
            beta_schedule="exp", prediction_type="sample", use_karras_sigmas=True, clip_sample=True
        ),
    }  # fmt: skip


CALL = {"num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent"}


def ShapEPipeline() -> Case:
    encoder = {"text_encoder": parts.clip_text(projection=True), "tokenizer": parts.tokenizer()}
    return Case(pipe=diffusers.ShapEPipeline(**components(), **encoder), call={**CALL, "prompt": "a red fox"})


def ShapEImg2ImgPipeline() -> Case:
    encoder = {
        "image_encoder": parts.clip_vision(), "image_processor": parts.clip_pictures(),
    }  # fmt: skip
    pipe = diffusers.ShapEImg2ImgPipeline(**components(embedding_proj_norm_type="layer"), **encoder)
    return Case(pipe=pipe, call={**CALL, "image": parts.picture()})
