"""Kandinsky 3."""

from typing import Any

import diffusers
from diffusers import DDPMScheduler, Kandinsky3UNet

from support import parts
from support.case import STEPS, Case
from support.families import kandinsky


def components() -> dict[str, Any]:
    return {
        "unet": Kandinsky3UNet(
            time_embedding_dim=32, groups=2, attention_head_dim=8, layers_per_block=2, block_out_channels=(16, 32),
            cross_attention_dim=parts.WIDTH, encoder_hid_dim=parts.WIDTH,
        ),
        "scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False), "text_encoder": parts.t5(),
        "tokenizer": parts.tokenizer(128), "movq": kandinsky.movq(),
    }  # fmt: skip


CALL = {"prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent"}


def Kandinsky3Pipeline() -> Case:
    return Case(pipe=diffusers.Kandinsky3Pipeline(**components()), call={**CALL, "height": 64, "width": 64})


def Kandinsky3Img2ImgPipeline() -> Case:
    pipe = diffusers.Kandinsky3Img2ImgPipeline(**components())
    return Case(pipe=pipe, call={**CALL, "image": parts.picture(16), **kandinsky.PARTIAL})
