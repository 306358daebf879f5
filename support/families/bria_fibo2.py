"""Bria Fibo 2."""

import diffusers
from diffusers import BriaFibo2Transformer2DModel

from support import parts
from support.case import STEPS, Case
from support.families import flux, flux2


def BriaFibo2Pipeline() -> Case:
    denoiser = BriaFibo2Transformer2DModel(
        in_channels=flux2.LATENTS, dim=32, n_layers=6, n_refiner_layers=1, n_heads=2, cap_feat_dim=3 * parts.WIDTH,
        injection_layer_ids=(1, 2, 3, 4, 5), perceiver_num_layers=2, min_num_gist_tokens=4, max_num_gist_tokens=8,
        gist_step=2, gist_min_text_len=16, gist_max_text_len=64, axes_dims=(4, 4, 8), axes_lens=(64, 64, 64),
    )  # fmt: skip
    pipe = diffusers.BriaFibo2Pipeline(
        transformer=denoiser, scheduler=flux.scheduler(), vae=flux2.autoencoder(),
        text_encoder=parts.vision_language("Qwen3VL", layers=36), processor=parts.vision_processor(patch=16),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": '{"short_description": "a red fox"}', "negative_prompt": "blurry", "guidance_scale": 5.0,
            "num_inference_steps": STEPS, "height": 16, "width": 16, "output_type": "latent",
        },
    )  # fmt: skip
