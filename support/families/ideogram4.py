"""Ideogram 4: the branch without a text is a network of its own."""

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, Ideogram4Transformer2DModel
from diffusers.pipelines.ideogram4.pipeline_ideogram4 import QWEN3_VL_ACTIVATION_LAYERS

from support import parts
from support.case import STEPS, Case
from support.families import flux2

LAYERS = max(QWEN3_VL_ACTIVATION_LAYERS) + 1


def transformer() -> Ideogram4Transformer2DModel:
    return Ideogram4Transformer2DModel(
        in_channels=4 * flux2.LATENTS, num_layers=2, attention_head_dim=12, num_attention_heads=2,
        intermediate_size=32, adaln_dim=16, llm_features_dim=len(QWEN3_VL_ACTIVATION_LAYERS) * parts.WIDTH,
        mrope_section=(2, 2, 2),
    ).eval()  # fmt: skip


def Ideogram4Pipeline() -> Case:
    pipe = diffusers.Ideogram4Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=flux2.autoencoder(), tokenizer=parts.vision_tokenizer(),
        text_encoder=parts.vision_language("Qwen3VL", layers=LAYERS, head="Model"), transformer=transformer(),
        unconditional_transformer=transformer(),
    )  # fmt: skip
    call = {
        "prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "guidance_schedule": None,
        "height": 16, "width": 16, "max_sequence_length": 64, "output_type": "latent",
    }  # fmt: skip
    return Case(pipe=pipe, call=call)
