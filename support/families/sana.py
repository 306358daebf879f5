"""Sana."""

from typing import Any

import diffusers
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaTransformer2DModel

from support import parts
from support.case import STEPS, Case

SHAPE: dict[str, Any] = {
    "in_channels": 8, "out_channels": 8, "num_attention_heads": 2, "attention_head_dim": 8,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16,
    "caption_channels": parts.WIDTH,
}  # fmt: skip


def transformer() -> SanaTransformer2DModel:
    return SanaTransformer2DModel(**SHAPE, num_layers=2).eval()


def vae() -> AutoencoderDC:
    """Return an image autoencoder that shrinks by 4."""
    return AutoencoderDC(
        latent_channels=8, attention_head_dim=4, encoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8, 16),
        decoder_block_out_channels=(8, 8, 16), encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1), encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)), downsample_block_type="pixel_unshuffle",
        upsample_block_type="pixel_shuffle", decoder_norm_types="rms_norm", decoder_act_fns="silu",
        scaling_factor=0.41407,
    ).eval()  # fmt: skip


def components() -> dict[str, Any]:
    return {
        "tokenizer": parts.tokenizer(), "text_encoder": parts.language_model("Gemma2", layers=2), "vae": vae(),
        "transformer": transformer(), "scheduler": scheduler(),
    }  # fmt: skip


def scheduler(flow_shift: float = 3.0) -> DPMSolverMultistepScheduler:
    return DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=flow_shift, beta_schedule="linear"
    )


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": 32, "width": 32, "max_sequence_length": 16, "output_type": "latent", "use_resolution_binning": False,
    "complex_human_instruction": None,
}  # fmt: skip


def SanaPipeline() -> Case:
    return Case(pipe=diffusers.SanaPipeline(**components()), call=CALL)


def SanaControlNetPipeline() -> Case:
    control = diffusers.SanaControlNetModel(**SHAPE, num_layers=1)
    return Case(
        pipe=diffusers.SanaControlNetPipeline(**components(), controlnet=control),
        call={**CALL, "control_image": parts.photo()},
    )
