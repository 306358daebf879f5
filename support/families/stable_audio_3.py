"""Stable Audio 3."""

from typing import Any

import diffusers
import transformers
from diffusers import (
    AutoencoderSAME,
    FlowMatchEulerDiscreteScheduler,
    StableAudio3DiTModel,
    StableAudio3DurationEmbedder,
)

from support import parts
from support.case import STEPS, Case


def transformer() -> StableAudio3DiTModel:
    return StableAudio3DiTModel(
        io_channels=8, embed_dim=32, depth=2, num_heads=2, cond_token_dim=parts.WIDTH, global_cond_dim=parts.WIDTH,
        local_add_cond_dim=9, timestep_features_dim=16, num_memory_tokens=4,
    )  # fmt: skip


def vae() -> AutoencoderSAME:
    return AutoencoderSAME(
        patch_size=4, encoder_channels=8, encoder_c_mults=(2,), encoder_strides=(2,), encoder_transformer_depths=(1,),
        latent_dim=8, dim_heads=8, sampling_rate=32,
    )  # fmt: skip


def text_encoder() -> Any:
    half = {
        "vocab_size": parts.VOCABULARY, "hidden_size": parts.WIDTH, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    config = transformers.T5GemmaConfig(
        encoder=half, decoder=half, is_encoder_decoder=False, vocab_size=parts.VOCABULARY
    )
    return transformers.T5GemmaEncoderModel(config)


def StableAudio3Pipeline() -> Case:
    return Case(
        pipe=diffusers.StableAudio3Pipeline(
            transformer=transformer(), vae=vae(), text_encoder=text_encoder(), tokenizer=parts.roberta_tokenizer(),
            duration_embedder=StableAudio3DurationEmbedder(output_dim=parts.WIDTH, fourier_dim=16),
            scheduler=FlowMatchEulerDiscreteScheduler(),
        ),
        call={
            "prompt": "a red fox", "duration": 2.0, "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "output_type": "latent",
        },
    )  # fmt: skip
