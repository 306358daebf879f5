"""Nucleus-MoE-Image."""

import diffusers
import torch
from diffusers import NucleusMoEImageTransformer2DModel

from support import parts
from support.case import Case
from support.families import flux, qwenimage


def NucleusMoEImagePipeline() -> Case:
    denoiser = NucleusMoEImageTransformer2DModel(
        in_channels=4 * qwenimage.LATENTS, out_channels=qwenimage.LATENTS, num_layers=5, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=parts.WIDTH, axes_dims_rope=(4, 4, 8), num_experts=4,
        moe_intermediate_dim=32, capacity_factors=2.0,
    )  # fmt: skip
    for parameter in denoiser.parameters():
        if parameter.dim() == 3:  # the experts, which diffusers leaves uninitialised
            torch.nn.init.normal_(parameter, std=0.1)
    pipe = diffusers.NucleusMoEImagePipeline(
        transformer=denoiser, scheduler=flux.scheduler(), vae=qwenimage.autoencoder(),
        text_encoder=parts.vision_language("Qwen3VL", layers=3), processor=parts.vision_processor(patch=16),
    )  # fmt: skip
    call = {name: value for name, value in qwenimage.CALL.items() if name != "true_cfg_scale"}
    return Case(pipe=pipe, call={**call, "guidance_scale": 4.0, "return_index": -2})
