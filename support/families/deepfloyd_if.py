"""DeepFloyd IF."""

from typing import Any

import diffusers
from diffusers import DDPMScheduler, UNet2DConditionModel

from support import parts
from support.case import STEPS, Case

SIZE = 16


def unet(in_channels: int = 3, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE, in_channels=in_channels, out_channels=6, layers_per_block=1, block_out_channels=(16, 32),
        norm_num_groups=8, down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), attention_head_dim=8, act_fn="gelu",
        cross_attention_dim=64, encoder_hid_dim=parts.WIDTH, encoder_hid_dim_type="text_proj",
        addition_embed_type="text", addition_embed_type_num_heads=2, cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift", time_embedding_act_fn="gelu", **options,
    )  # fmt: skip


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        variance_type="learned_range", beta_schedule="squaredcos_cap_v2", thresholding=True, sample_max_value=1.5
    )


def base() -> dict[str, Any]:
    return {
        "unet": unet(), "scheduler": scheduler(), "text_encoder": parts.t5(), "tokenizer": parts.tokenizer(),
        "safety_checker": None, "feature_extractor": None, "watermarker": None, "requires_safety_checker": False,
    }  # fmt: skip


def upscaler() -> dict[str, Any]:
    """Return the components of a second stage: it also sees the small picture and how much noise that got."""
    return {
        **base(), "unet": unet(6, class_embed_type="timestep"),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "clean_caption": False, "output_type": "pt",
}  # fmt: skip
SMALL = parts.picture(SIZE // 2, seed=1) * 2 - 1
LARGE = parts.picture(SIZE) * 2 - 1
MASK = (parts.picture(SIZE, channels=1) > 0.5).float()


def IFPipeline() -> Case:
    return Case(pipe=diffusers.IFPipeline(**base()), call={**CALL, "height": SIZE, "width": SIZE})


def IFImg2ImgPipeline() -> Case:
    return Case(pipe=diffusers.IFImg2ImgPipeline(**base()), call={**CALL, "image": LARGE, "strength": 0.7})


def IFInpaintingPipeline() -> Case:
    return Case(
        pipe=diffusers.IFInpaintingPipeline(**base()),
        call={**CALL, "image": LARGE, "mask_image": MASK, "strength": 1.0},
    )


def IFSuperResolutionPipeline() -> Case:
    return Case(
        pipe=diffusers.IFSuperResolutionPipeline(**upscaler()),
        call={**CALL, "image": SMALL, "height": SIZE, "width": SIZE},
    )


def IFImg2ImgSuperResolutionPipeline() -> Case:
    return Case(
        pipe=diffusers.IFImg2ImgSuperResolutionPipeline(**upscaler()),
        call={**CALL, "image": SMALL, "original_image": LARGE, "strength": 0.7},
    )


def IFInpaintingSuperResolutionPipeline() -> Case:
    return Case(
        pipe=diffusers.IFInpaintingSuperResolutionPipeline(**upscaler()),
        call={**CALL, "image": SMALL, "original_image": LARGE, "mask_image": MASK, "strength": 0.7},
    )
