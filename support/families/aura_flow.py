"""AuraFlow."""

import diffusers
from diffusers import AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

from support import parts
from support.case import STEPS, Case


def transformer() -> AuraFlowTransformer2DModel:
    return AuraFlowTransformer2DModel(
        sample_size=16, in_channels=4, num_mmdit_layers=2, num_single_dit_layers=2, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=parts.WIDTH, caption_projection_dim=32, pos_embed_max_size=64,
    )  # fmt: skip


def AuraFlowPipeline() -> Case:
    pipe = diffusers.AuraFlowPipeline(
        tokenizer=parts.tokenizer(), text_encoder=parts.t5(umt5=True), vae=parts.autoencoder(),
        transformer=parts.lively(transformer()), scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "height": 16, "width": 16, "max_sequence_length": 16, "output_type": "latent",
        },
    )  # fmt: skip
