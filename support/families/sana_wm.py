"""Sana WM: a film from a picture and a path of the camera."""

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, SanaWMTransformer3DModel

from support import parts
from support.case import STEPS, Case
from support.families import ltx2


def SanaWMPipeline() -> Case:
    denoiser = SanaWMTransformer3DModel(
        in_channels=ltx2.LATENTS, num_layers=2, hidden_size=48, num_attention_heads=2, softmax_every_n=2,
        linear_head_dim=24, chunk_plucker_channels=48, chunk_plucker_post_attn_blocks=2, image_size=32,
        caption_channels=parts.WIDTH, mlp_ratio=2.0,
    )  # fmt: skip
    pipe = diffusers.SanaWMPipeline(
        tokenizer=parts.tokenizer(), text_encoder=parts.language_model("Gemma2", layers=2), vae=ltx2.autoencoder(),
        transformer=denoiser, scheduler=FlowMatchEulerDiscreteScheduler(shift=8.0),
    )  # fmt: skip
    call = {
        "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
        "image": parts.photo(), "action": "w-8", "intrinsics": [32.0, 32.0, 16.0, 16.0], "num_frames": 9,
        "height": 32, "width": 32, "max_sequence_length": 16, "chi_prompt": ["Draw: "], "output_type": "latent",
    }  # fmt: skip
    return Case(pipe=pipe, call=call)
