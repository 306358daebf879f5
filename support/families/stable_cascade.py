"""Stable Cascade."""

from typing import Any

import diffusers
import torch
from diffusers import DDPMWuerstchenScheduler, StableCascadeUNet
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel

from support import parts
from support.case import STEPS, Case

CONVOLUTION = ("SDCascadeResBlock", "SDCascadeTimestepBlock")
ATTENTION = (*CONVOLUTION, "SDCascadeAttnBlock")


def unet(**options: Any) -> StableCascadeUNet:
    return StableCascadeUNet(
        in_channels=4, out_channels=4, conditioning_dim=32, block_out_channels=(16, 32), num_attention_heads=(2, 4),
        down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1), clip_text_pooled_in_channels=parts.WIDTH,
        **options,
    )  # fmt: skip


def vqgan() -> PaellaVQModel:
    return PaellaVQModel(bottleneck_blocks=1, embed_dim=16, num_vq_embeddings=16)


def common() -> dict[str, Any]:
    return {
        "scheduler": DDPMWuerstchenScheduler(), "text_encoder": parts.clip_text(projection=True),
        "tokenizer": parts.tokenizer(),
    }  # fmt: skip


def prior() -> dict[str, Any]:
    network = unet(
        block_types_per_layer=(ATTENTION, ATTENTION), clip_text_in_channels=parts.WIDTH,
        clip_image_in_channels=parts.WIDTH, switch_level=(False,),
    )  # fmt: skip
    return {"prior": network, **common()}


def decoder() -> dict[str, Any]:
    network = unet(
        block_types_per_layer=(CONVOLUTION, ATTENTION), patch_size=2, effnet_in_channels=4, pixel_mapper_in_channels=3,
        timestep_conditioning_type=("sca",),
    )  # fmt: skip
    return {"decoder": network, "vqgan": vqgan(), **common()}


def stages() -> dict[str, Any]:
    first = {f"prior_{name}": part for name, part in prior().items()}
    return {**decoder(), **first}


CALL = {"prompt": "a red fox", "num_inference_steps": STEPS}
SIZE = {"height": 128, "width": 128}
SCALES = {"prior_guidance_scale": 4.0, "decoder_guidance_scale": 2.0}


def image_embeddings() -> torch.Tensor:
    return torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(0))


def StableCascadePriorPipeline() -> Case:
    return Case(pipe=diffusers.StableCascadePriorPipeline(**prior()), call={**CALL, **SIZE, "guidance_scale": 4.0})


def StableCascadeDecoderPipeline() -> Case:
    return Case(
        pipe=diffusers.StableCascadeDecoderPipeline(**decoder()),
        call={**CALL, "image_embeddings": image_embeddings(), "guidance_scale": 2.0, "output_type": "latent"},
    )


def StableCascadeCombinedPipeline() -> Case:
    return Case(
        pipe=diffusers.StableCascadeCombinedPipeline(**stages()),
        call={**CALL, **SIZE, **SCALES, "prior_num_inference_steps": STEPS, "output_type": "latent"},
    )
