"""ControlNet for Stable Diffusion 1, 2 and XL."""

from typing import Any

import diffusers
from diffusers import ControlNetModel, ControlNetUnionModel, UNet2DConditionModel

from support import parts
from support.case import STEPS, Case
from support.families import stable_diffusion as sd
from support.families import stable_diffusion_xl as xl

CONDITION_CHANNELS = (8, 8)  # a control picture shrinks once, as in the autoencoder
STRENGTH = {"strength": 0.8, "num_inference_steps": STEPS + 1}


def controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=CONDITION_CHANNELS)


def union() -> ControlNetUnionModel:
    return ControlNetUnionModel(
        in_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), block_out_channels=(16, 32),
        layers_per_block=1, norm_num_groups=8, cross_attention_dim=2 * parts.WIDTH, transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=xl.SIZE_IDS, projection_class_embeddings_input_dim=6 * xl.SIZE_IDS + parts.WIDTH,
        conditioning_embedding_out_channels=CONDITION_CHANNELS, num_trans_channel=16, num_trans_head=2,
        num_proj_channel=16,
    )  # fmt: skip


def pieces() -> dict[str, Any]:
    made = sd.unchecked()
    return {**made, "controlnet": controlnet(made["unet"])}


def xl_pieces(**options: Any) -> dict[str, Any]:
    made = xl.components(**options)
    return {**made, "controlnet": controlnet(made["unet"])}


def union_pieces() -> dict[str, Any]:
    return {**xl.components(), "controlnet": union()}


def image() -> dict[str, Any]:
    return {**STRENGTH, "image": parts.picture(), "control_image": parts.picture(seed=1), **sd.SIZE}


def hole() -> dict[str, Any]:
    return {**sd.SIZE, "image": parts.picture(), "mask_image": sd.mask(), "control_image": parts.picture(seed=1)}


def StableDiffusionControlNetPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionControlNetPipeline(**pieces()), call={**sd.CALL, "image": parts.picture()}
    )


def StableDiffusionControlNetImg2ImgPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionControlNetImg2ImgPipeline(**pieces()), call={**sd.CALL, **image()})


def StableDiffusionControlNetInpaintPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionControlNetInpaintPipeline(**pieces()), call={**sd.CALL, **hole()})


def StableDiffusionXLControlNetPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetPipeline(**xl_pieces()), call={**xl.CALL, "image": parts.picture()}
    )


def StableDiffusionXLControlNetImg2ImgPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionXLControlNetImg2ImgPipeline(**xl_pieces()), call={**xl.CALL, **image()})


def StableDiffusionXLControlNetInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetInpaintPipeline(**xl_pieces()),
        call={**xl.CALL, **hole(), **STRENGTH},
    )


def StableDiffusionXLControlNetUnionPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetUnionPipeline(**union_pieces()),
        call={**xl.CALL, "control_image": parts.picture(), "control_mode": 3},
    )


def StableDiffusionXLControlNetUnionImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetUnionImg2ImgPipeline(**union_pieces()),
        call={**xl.CALL, **image(), "control_mode": 3},
    )


def StableDiffusionXLControlNetUnionInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetUnionInpaintPipeline(**union_pieces()),
        call={**xl.CALL, **hole(), **STRENGTH, "control_mode": 3},
    )
