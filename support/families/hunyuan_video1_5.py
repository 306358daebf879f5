"""HunyuanVideo 1.5."""

from typing import Any

import diffusers
import transformers
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Transformer3DModel,
)

from support import parts
from support.case import STEPS, Case


def transformer(task: str) -> HunyuanVideo15Transformer3DModel:
    made = HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
        num_refiner_layers=1, text_embed_dim=parts.WIDTH, text_embed_2_dim=parts.WIDTH, image_embed_dim=parts.WIDTH,
        rope_axes_dim=(4, 4, 4), target_size=32, task_type=task,
    )  # fmt: skip
    return parts.lively(made)


def vae() -> AutoencoderKLHunyuanVideo15:
    """Return a video autoencoder that shrinks pictures by 16 and time by 4."""
    return AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1,
    ).eval()  # fmt: skip


def reader(width: int = parts.WIDTH, layers: int = 3) -> Any:
    """Return the text half of Qwen 2.5 VL."""
    config = transformers.Qwen2_5_VLTextConfig(
        vocab_size=parts.VOCABULARY, hidden_size=width, intermediate_size=37, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    )  # fmt: skip
    return transformers.Qwen2_5_VLTextModel(config).eval()


def components(task: str) -> dict[str, Any]:
    return {
        "text_encoder": reader(),
        "tokenizer": parts.tokenizer(64), "transformer": transformer(task), "vae": vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0), "text_encoder_2": parts.t5(),
        "tokenizer_2": parts.tokenizer(), "guider": ClassifierFreeGuidance(guidance_scale=6.0),
    }  # fmt: skip


def shortened(pipe: Any) -> Any:
    """Give the pipeline a short instruction, and so short sequences."""
    pipe.system_message = "describe"
    pipe.prompt_template_encode_start_idx = 24
    pipe.tokenizer_max_length = 32
    pipe.tokenizer_2_max_length = 16
    pipe.vision_num_semantic_tokens = 4
    return pipe


CALL = {
    "prompt": 'a red fox says "hello"', "negative_prompt": "blurry", "num_inference_steps": STEPS, "num_frames": 5,
    "output_type": "latent",
}  # fmt: skip


def HunyuanVideo15Pipeline() -> Case:
    pipe = diffusers.HunyuanVideo15Pipeline(**components("t2v"))
    return Case(pipe=shortened(pipe), call={**CALL, "height": 32, "width": 32})


def HunyuanVideo15ImageToVideoPipeline() -> Case:
    pipe = diffusers.HunyuanVideo15ImageToVideoPipeline(
        **components("i2v"), image_encoder=parts.siglip_vision(), feature_extractor=parts.siglip_pictures()
    )
    return Case(pipe=shortened(pipe), call={**CALL, "image": parts.photo()})
