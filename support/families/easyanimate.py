"""EasyAnimate."""

from typing import Any

import diffusers
from diffusers import AutoencoderKLMagvit, EasyAnimateTransformer3DModel, FlowMatchEulerDiscreteScheduler
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from support import parts
from support.case import STEPS, Case

LATENTS = 4
SIZE = 16
FRAMES = 5


def transformer(in_channels: int, **options: Any) -> EasyAnimateTransformer3DModel:
    return EasyAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=in_channels, out_channels=LATENTS, patch_size=2,
        num_layers=2, mmdit_layers=2, time_embed_dim=16, text_embed_dim=parts.WIDTH, **options,
    )  # fmt: skip


def autoencoder() -> AutoencoderKLMagvit:
    temporal = 2
    return AutoencoderKLMagvit(
        latent_channels=LATENTS, block_out_channels=(8,) * (temporal + 1), layers_per_block=1, norm_num_groups=2,
        down_block_types=("SpatialDownBlock3D", *("SpatialTemporalDownBlock3D",) * temporal),
        up_block_types=("SpatialUpBlock3D", *("SpatialTemporalUpBlock3D",) * temporal),
    )  # fmt: skip


def text_encoder() -> Qwen2VLForConditionalGeneration:
    text = {
        "vocab_size": parts.VOCABULARY, "hidden_size": parts.WIDTH, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": 0,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
    }  # fmt: skip
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": parts.WIDTH, "mlp_ratio": 1, "num_heads": 2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision)).eval()


def components(in_channels: int, **options: Any) -> dict[str, Any]:
    return {
        "vae": autoencoder(), "text_encoder": text_encoder(), "tokenizer": parts.tokenizer(256),
        "transformer": parts.lively(transformer(in_channels, **options), 3.0),
        "scheduler": FlowMatchEulerDiscreteScheduler(),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "num_frames": FRAMES, "height": SIZE, "width": SIZE, "output_type": "latent",
}  # fmt: skip


def EasyAnimatePipeline() -> Case:
    return Case(pipe=diffusers.EasyAnimatePipeline(**components(LATENTS)), call=CALL)


def EasyAnimateInpaintPipeline() -> Case:
    video = parts.picture(SIZE, channels=3 * FRAMES).view(1, 3, FRAMES, SIZE, SIZE)
    mask = parts.picture(SIZE, channels=FRAMES, seed=1).view(1, 1, FRAMES, SIZE, SIZE).round()
    # A mask resized directly needs an entry that no autoencoder's configuration has.
    return Case(
        pipe=diffusers.EasyAnimateInpaintPipeline(**components(3 * LATENTS, resize_inpaint_mask_directly=False)),
        call={**CALL, "video": video, "mask_video": mask},
    )
