"""Stable Diffusion 1 and 2."""

from typing import Any

import diffusers
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PriorTransformer,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

from support import parts
from support.case import STEPS, Case

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
CROSS_ATTENTION_FIRST = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


def unet(in_channels: int = 4, **options: Any) -> UNet2DConditionModel:
    config = {
        "sample_size": 16, "in_channels": in_channels, "out_channels": 4, "layers_per_block": 1,
        "block_out_channels": (16, 32), "norm_num_groups": 8, "cross_attention_dim": parts.WIDTH,
        "attention_head_dim": 4, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**{**config, **options})


def scheduler(**options: Any) -> DDIMScheduler:
    return DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, **options)


def components(**options: Any) -> dict[str, Any]:
    return {
        "unet": unet(**options), "scheduler": scheduler(), "vae": parts.autoencoder(),
        "text_encoder": parts.clip_text(), "tokenizer": parts.tokenizer(), "safety_checker": None,
        "feature_extractor": None,
    }  # fmt: skip


def unchecked(**options: Any) -> dict[str, Any]:
    """Return the arguments of a pipeline that would ask for a safety checker."""
    return {**components(**options), "requires_safety_checker": False}


def bare(**options: Any) -> dict[str, Any]:
    """Return the components of a pipeline that knows no safety checker."""
    made = components(**options)
    return {name: made[name] for name in ("unet", "scheduler", "vae", "text_encoder", "tokenizer")}


def mask(size: int = 32) -> torch.Tensor:
    """Return a mask [1, 1, size, size] of the lower half."""
    return (torch.arange(size) >= size // 2).float().view(1, 1, size, 1).expand(1, 1, size, size).clone()


CALL = {"prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent"}
SIZE = {"height": 32, "width": 32}
STRENGTH = {"strength": 0.8, "num_inference_steps": STEPS + 1}  # the first of these steps is left out


def StableDiffusionPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionPipeline(**unchecked()), call={**CALL, **SIZE})


def StableDiffusionImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionImg2ImgPipeline(**unchecked()),
        call={**CALL, **STRENGTH, "image": parts.picture()},
    )


def StableDiffusionInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionInpaintPipeline(**unchecked(in_channels=9)),
        call={**CALL, **SIZE, "image": parts.picture(), "mask_image": mask()},
    )


def StableDiffusionInstructPix2PixPipeline() -> Case:
    pieces = {**unchecked(in_channels=8), "scheduler": EulerAncestralDiscreteScheduler(**BETAS)}
    return Case(
        pipe=diffusers.StableDiffusionInstructPix2PixPipeline(**pieces),
        call={**CALL, "image": parts.picture(), "image_guidance_scale": 1.5},
    )


def StableDiffusionDepth2ImgPipeline() -> Case:
    pieces = {**bare(in_channels=5), "depth_estimator": None, "feature_extractor": None}
    return Case(
        pipe=diffusers.StableDiffusionDepth2ImgPipeline(**pieces),
        call={**CALL, **STRENGTH, "image": parts.picture(), "depth_map": parts.picture(channels=1, seed=1)[0]},
    )


def StableDiffusionImageVariationPipeline() -> Case:
    pipe = diffusers.StableDiffusionImageVariationPipeline(
        vae=parts.autoencoder(), image_encoder=parts.clip_vision(projection=True), unet=unet(), scheduler=scheduler(),
        safety_checker=None, feature_extractor=parts.clip_pictures(), requires_safety_checker=False,
    )  # fmt: skip
    call = {name: value for name, value in CALL.items() if name != "prompt"}
    return Case(pipe=pipe, call={**call, **SIZE, "image": parts.photo()})


def StableDiffusionUpscalePipeline() -> Case:
    pieces = {
        **bare(in_channels=7, num_class_embeds=1000), "vae": parts.autoencoder(blocks=3),
        "low_res_scheduler": DDPMScheduler(**BETAS),
    }  # fmt: skip
    return Case(
        pipe=diffusers.StableDiffusionUpscalePipeline(**pieces), call={**CALL, "image": parts.picture(16)}
    )  # fmt: skip


def StableDiffusionLatentUpscalePipeline() -> Case:
    network = UNet2DConditionModel(
        sample_size=16, in_channels=8, out_channels=5, center_input_sample=False, act_fn="gelu", attention_head_dim=16,
        block_out_channels=(32, 32, 64, 64), layers_per_block=2, norm_num_groups=None, conv_in_kernel=1,
        conv_out_kernel=1, cross_attention_dim=parts.WIDTH, mid_block_type=None, resnet_time_scale_shift="scale_shift",
        down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
        up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"),
        time_embedding_type="fourier", timestep_post_act="gelu", time_cond_proj_dim=128 + parts.WIDTH,
    )  # fmt: skip
    pieces = {**bare(), "unet": network, "scheduler": EulerDiscreteScheduler(**BETAS)}
    return Case(
        pipe=diffusers.StableDiffusionLatentUpscalePipeline(**pieces), call={**CALL, "image": parts.picture()}
    )  # fmt: skip


def unclip_components() -> dict[str, Any]:
    """Return what the two unCLIP pipelines share: a network that is told of a noised image embedding."""
    return {
        **bare(class_embed_type="projection", projection_class_embeddings_input_dim=2 * parts.WIDTH),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=parts.WIDTH),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    }


def StableUnCLIPPipeline() -> Case:
    pieces = {
        **unclip_components(), "prior_tokenizer": parts.tokenizer(),
        "prior_text_encoder": parts.clip_text(projection=True),
        "prior": PriorTransformer(
            num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=parts.WIDTH, num_embeddings=16,
        ),
        "prior_scheduler": DDPMScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0,
            beta_schedule="squaredcos_cap_v2",
        ),
    }  # fmt: skip
    return Case(
        pipe=diffusers.StableUnCLIPPipeline(**pieces),
        call={**CALL, **SIZE, "prior_num_inference_steps": STEPS, "prior_guidance_scale": 4.0},
    )


def StableUnCLIPImg2ImgPipeline() -> Case:
    pieces = {
        **unclip_components(), "feature_extractor": parts.clip_pictures(),
        "image_encoder": parts.clip_vision(projection=True),
    }  # fmt: skip
    return Case(
        pipe=diffusers.StableUnCLIPImg2ImgPipeline(**pieces), call={**CALL, **SIZE, "image": parts.photo()}
    )  # fmt: skip
