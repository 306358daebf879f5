"""Motif Video."""

from typing import Any

import diffusers
import transformers
from diffusers import ClassifierFreeGuidance, FlowMatchEulerDiscreteScheduler, MotifVideoTransformer3DModel

from support import parts
from support.case import STEPS, Case
from support.families import wan


def transformer(**options: Any) -> MotifVideoTransformer3DModel:
    return MotifVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, num_layers=2, num_single_layers=2, text_embed_dim=parts.WIDTH,
        rope_axes_dim=(4, 4, 4), enable_text_cross_attention_dual=True, enable_text_cross_attention_single=True,
        **options,
    ).eval()  # fmt: skip


def reader() -> Any:
    """Return the encoder of T5Gemma 2, which reads texts and pictures."""
    text = {
        "vocab_size": parts.VOCABULARY, "hidden_size": parts.WIDTH, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "dropout_rate": 0.0,
    }  # fmt: skip
    vision = parts.siglip_vision().config.to_dict()
    config = transformers.T5Gemma2EncoderConfig(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.T5Gemma2Encoder(config).eval()


def components(**options: Any) -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0), "vae": wan.vae(), "text_encoder": reader(),
        "tokenizer": parts.tokenizer(), "transformer": transformer(**options),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0), "feature_extractor": parts.siglip_pictures(),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "height": 32, "width": 32,
    "num_frames": 5, "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip


def MotifVideoPipeline() -> Case:
    return Case(pipe=diffusers.MotifVideoPipeline(**components()), call=CALL)


def MotifVideoImage2VideoPipeline() -> Case:
    parts_of = components(image_embed_dim=parts.WIDTH)
    return Case(pipe=diffusers.MotifVideoImage2VideoPipeline(**parts_of), call={**CALL, "image": parts.photo()})
