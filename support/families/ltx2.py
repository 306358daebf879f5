"""LTX-2: video with sound."""

from typing import Any

import diffusers
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_hdr_lora import LTX2HDRReferenceCondition
from diffusers.pipelines.ltx2.pipeline_ltx2_ic_lora import LTX2ReferenceCondition
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from support import parts
from support.case import STEPS, Case

LATENTS = 8
SOUND = 16  # channels of a sound latent: 4 for each of 4 bins
SIZE = 32
FRAMES = 9
TOKENS = 16
LAYERS = 2


def autoencoder() -> AutoencoderKLLTX2Video:
    """Return a video autoencoder that shrinks pictures and time by 8."""
    return AutoencoderKLLTX2Video(
        latent_channels=LATENTS, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1), patch_size=1,
        spatial_compression_ratio=8, temporal_compression_ratio=8,
    )  # fmt: skip


def audio_autoencoder() -> AutoencoderKLLTX2Audio:
    return AutoencoderKLLTX2Audio(
        base_channels=SOUND, ch_mult=(1, 1, 1), num_res_blocks=1, resolution=32, latent_channels=4, mel_bins=16
    )


def transformer() -> LTX2VideoTransformer3DModel:
    return LTX2VideoTransformer3DModel(
        in_channels=LATENTS, out_channels=LATENTS, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        vae_scale_factors=(8, 8, 8), audio_in_channels=SOUND, audio_out_channels=SOUND, audio_num_attention_heads=2,
        audio_attention_head_dim=8, audio_cross_attention_dim=16, num_layers=2, caption_channels=parts.WIDTH,
        perturbed_attn=True,
    )  # fmt: skip


def text_encoder() -> Gemma3ForConditionalGeneration:
    text = {
        "vocab_size": parts.VOCABULARY, "hidden_size": parts.WIDTH, "intermediate_size": 37,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 8,
    }  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config).eval()


def connectors() -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=parts.WIDTH, text_proj_in_factor=LAYERS + 1, video_connector_num_attention_heads=4,
        video_connector_attention_head_dim=8, video_connector_num_layers=1, video_connector_num_learnable_registers=8,
        audio_connector_num_attention_heads=4, audio_connector_attention_head_dim=8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=8, connector_rope_base_seq_len=TOKENS,
    )  # fmt: skip


def components() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
        ),
        "vae": autoencoder(), "audio_vae": audio_autoencoder(), "text_encoder": text_encoder(),
        "tokenizer": parts.tokenizer(TOKENS), "connectors": connectors(), "transformer": transformer(),
        "vocoder": LTX2Vocoder(
            in_channels=8, hidden_channels=8, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
            resnet_kernel_sizes=[3], resnet_dilations=[[1]],
        ),
    }  # fmt: skip


GUIDANCE: dict[str, Any] = {
    "guidance_scale": 3.0, "stg_scale": 1.0, "modality_scale": 3.0, "spatio_temporal_guidance_blocks": [1]
}  # fmt: skip
CALL: dict[str, Any] = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, **GUIDANCE, "num_frames": FRAMES,
    "height": SIZE, "width": SIZE, "max_sequence_length": TOKENS, "output_type": "latent",
}  # fmt: skip
SOUNDING = {**CALL, "audio_guidance_scale": 7.0, "audio_stg_scale": 1.0, "audio_modality_scale": 3.0}


def first_frame() -> LTX2VideoCondition:
    return LTX2VideoCondition(frames=parts.photo(SIZE), crf=0)


def LTX2Pipeline() -> Case:
    return Case(pipe=diffusers.LTX2Pipeline(**components()), call=SOUNDING)


def LTX2ImageToVideoPipeline() -> Case:
    return Case(
        pipe=diffusers.LTX2ImageToVideoPipeline(**components()),
        call={**SOUNDING, "image": parts.photo(SIZE), "image_crf": 0},
    )


def LTX2ConditionPipeline() -> Case:
    return Case(pipe=diffusers.LTX2ConditionPipeline(**components()), call={**SOUNDING, "conditions": [first_frame()]})


def LTX2InContextPipeline() -> Case:
    reference = LTX2ReferenceCondition(frames=parts.film(FRAMES, SIZE))
    return Case(
        pipe=diffusers.LTX2InContextPipeline(**components()),
        call={**SOUNDING, "reference_conditions": [reference], "conditions": [first_frame()]},
    )


def LTX2HDRPipeline() -> Case:
    reference = LTX2HDRReferenceCondition(frames=parts.film(FRAMES, SIZE))
    return Case(pipe=diffusers.LTX2HDRPipeline(**components()), call={**CALL, "reference_conditions": [reference]})
