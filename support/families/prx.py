"""PRX."""

from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, PRXTransformer2DModel
from transformers import T5GemmaConfig, T5GemmaModuleConfig
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from support import parts
from support.case import STEPS, Case
from support.families import flux

LENGTH = 16


def transformer(channels: int, patch: int) -> PRXTransformer2DModel:
    return PRXTransformer2DModel(
        in_channels=channels, patch_size=patch, context_in_dim=parts.WIDTH, hidden_size=32, num_heads=2, depth=2,
        axes_dim=[8, 8],
    )  # fmt: skip


def text_encoder() -> T5GemmaEncoder:
    sizes = T5GemmaModuleConfig(
        vocab_size=parts.VOCABULARY, hidden_size=parts.WIDTH, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    return T5GemmaEncoder(T5GemmaConfig(encoder=sizes, decoder=sizes).encoder).eval()


def components() -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0), "text_encoder": text_encoder(),
        "tokenizer": parts.tokenizer(LENGTH),
    }  # fmt: skip


@torch.no_grad()
def call(pipe: Any) -> dict[str, Any]:
    """Return a call with encoded prompts: the pipelines need ftfy to read a string."""
    tokens = pipe.tokenizer(["a red fox", "blurry"], padding="max_length", max_length=LENGTH, return_tensors="pt")
    masks = tokens.attention_mask.bool()
    embeds = pipe.text_encoder(input_ids=tokens.input_ids, attention_mask=masks).last_hidden_state
    return {
        "prompt_embeds": embeds[:1], "negative_prompt_embeds": embeds[1:], "prompt_attention_mask": masks[:1],
        "negative_prompt_attention_mask": masks[1:], "num_inference_steps": STEPS, "guidance_scale": 4.0,
        "height": 16, "width": 16, "use_resolution_binning": False, "output_type": "latent",
    }  # fmt: skip


def PRXPipeline() -> Case:
    pipe = diffusers.PRXPipeline(**components(), transformer=transformer(4, 2), vae=flux.autoencoder())
    return Case(pipe=pipe, call=call(pipe))


def PRXPixelPipeline() -> Case:
    pipe = diffusers.PRXPixelPipeline(**components(), transformer=transformer(3, 4))
    return Case(pipe=pipe, call=call(pipe))
