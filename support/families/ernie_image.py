"""ERNIE-Image."""

from typing import Any

import diffusers
import transformers
from diffusers import ErnieImageTransformer2DModel, FlowMatchEulerDiscreteScheduler

from support import parts
from support.case import STEPS, Case
from support.families import flux2


def reader() -> Any:
    """Return a vision-language model of Mistral, of which only the text half is used."""
    text = {
        "model_type": "mistral", "vocab_size": parts.VOCABULARY, "hidden_size": parts.WIDTH, "intermediate_size": 37,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    config = transformers.Mistral3Config(text_config=text, vision_config=vision, image_token_index=4)
    return transformers.Mistral3Model(config).eval()


def ErnieImagePipeline() -> Case:
    denoiser = ErnieImageTransformer2DModel(
        hidden_size=32, num_attention_heads=2, num_layers=2, ffn_hidden_size=48, in_channels=4 * flux2.LATENTS,
        out_channels=4 * flux2.LATENTS, text_in_dim=parts.WIDTH, rope_axes_dim=(4, 6, 6),
    ).eval()  # fmt: skip
    pipe = diffusers.ErnieImagePipeline(
        transformer=denoiser, vae=flux2.autoencoder(), text_encoder=reader(), tokenizer=parts.tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    call = {
        "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 4.0,
        "height": 16, "width": 16, "output_type": "latent",
    }  # fmt: skip
    return Case(pipe=pipe, call=call)
