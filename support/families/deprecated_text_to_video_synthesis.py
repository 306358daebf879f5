"""ModelScope's text-to-video and Text2Video-Zero."""

from typing import Any

import diffusers
from diffusers import UNet3DConditionModel

from support import parts
from support.case import STEPS, Case
from support.families import stable_diffusion, stable_diffusion_xl

CALL = {"prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent"}
SIZE = {"height": 32, "width": 32}
# The first frame takes the first step alone and the last three with the other.
ZERO = {**CALL, **SIZE, "num_inference_steps": STEPS + 1, "video_length": 2, "t0": 1, "t1": 2}


def unet() -> UNet3DConditionModel:
    return UNet3DConditionModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=parts.WIDTH,
    )  # fmt: skip


def components() -> dict[str, Any]:
    return {**stable_diffusion.bare(), "unet": unet()}


def TextToVideoSDPipeline() -> Case:
    return Case(pipe=diffusers.TextToVideoSDPipeline(**components()), call={**CALL, **SIZE, "num_frames": 2})


def VideoToVideoSDPipeline() -> Case:
    return Case(
        pipe=diffusers.VideoToVideoSDPipeline(**components()),
        call={**CALL, "video": parts.film(2), "num_inference_steps": STEPS + 1, "strength": 0.8},
    )


def TextToVideoZeroPipeline() -> Case:
    return Case(pipe=diffusers.TextToVideoZeroPipeline(**stable_diffusion.unchecked()), call=ZERO)


def TextToVideoZeroSDXLPipeline() -> Case:
    made = {**stable_diffusion_xl.components(), "scheduler": stable_diffusion.scheduler()}
    return Case(pipe=diffusers.TextToVideoZeroSDXLPipeline(**made), call=ZERO)
