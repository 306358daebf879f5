"""Krea 2."""

import diffusers
from diffusers import Krea2Transformer2DModel

from support import parts
from support.case import Case
from support.families import flux, qwenimage


def Krea2Pipeline() -> Case:
    denoiser = Krea2Transformer2DModel(
        in_channels=4 * qwenimage.LATENTS, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        num_key_value_heads=1, intermediate_size=64, timestep_embed_dim=32, text_hidden_dim=parts.WIDTH,
        num_text_layers=2, text_num_attention_heads=2, text_num_key_value_heads=1, text_intermediate_size=64,
        num_layerwise_text_blocks=1, num_refiner_text_blocks=1, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    pipe = diffusers.Krea2Pipeline(
        transformer=denoiser, scheduler=flux.scheduler(), vae=qwenimage.autoencoder(),
        text_encoder=parts.vision_language("Qwen3VL", head="Model"), tokenizer=parts.vision_tokenizer(),
        text_encoder_select_layers=(1, 2),
    )  # fmt: skip
    call = {name: value for name, value in qwenimage.CALL.items() if name != "true_cfg_scale"}
    return Case(pipe=pipe, call={**call, "guidance_scale": 4.5, "max_sequence_length": 256})
