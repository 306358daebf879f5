"""Z-Image."""

from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImageControlNetModel, ZImageTransformer2DModel
from transformers import Siglip2VisionConfig, Siglip2VisionModel
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from support import parts
from support.case import STEPS, Case

LATENTS = 4
SIZE = 16


def transformer(**options: Any) -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=LATENTS, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=parts.WIDTH,
        axes_dims=[4, 6, 6], axes_lens=[512, 32, 32], **options,
    )  # fmt: skip


def components(**options: Any) -> dict[str, Any]:
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=6.0),
        "vae": parts.autoencoder(LATENTS, scaling_factor=0.36, shift_factor=0.12),
        "text_encoder": parts.language_model("Qwen3"), "tokenizer": parts.tokenizer(64),
        "transformer": transformer(**options),
    }  # fmt: skip


def controlnet(control_in_dim: int) -> ZImageControlNetModel:
    return ZImageControlNetModel(
        control_layers_places=[0, 1], control_refiner_layers_places=[0], control_in_dim=control_in_dim,
        add_control_noise_refiner="control_noise_refiner", dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
    )  # fmt: skip


def siglip() -> dict[str, Any]:
    config = Siglip2VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_patches=16, patch_size=4
    )
    return {
        "siglip": Siglip2VisionModel(config).eval(),
        "siglip_processor": Siglip2ImageProcessorPil(patch_size=4, max_num_patches=16),
    }


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 4.0,
    "height": SIZE, "width": SIZE, "max_sequence_length": 64, "output_type": "latent",
}  # fmt: skip


def mask() -> Any:
    return parts.picture(SIZE, channels=1, seed=1).round()


def ZImagePipeline() -> Case:
    return Case(pipe=diffusers.ZImagePipeline(**components()), call=CALL)


def ZImageImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.ZImageImg2ImgPipeline(**components()),
        call={**CALL, "image": parts.picture(SIZE), "strength": 1.0},
    )


def ZImageInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.ZImageInpaintPipeline(**components()),
        call={**CALL, "image": parts.picture(SIZE), "mask_image": mask(), "strength": 1.0},
    )


def ZImageControlNetPipeline() -> Case:
    return Case(
        pipe=diffusers.ZImageControlNetPipeline(**components(), controlnet=controlnet(LATENTS)),
        call={**CALL, "control_image": parts.picture(SIZE, seed=2)},
    )


def ZImageControlNetInpaintPipeline() -> Case:
    pictures = {"image": parts.picture(SIZE), "mask_image": mask(), "control_image": parts.picture(SIZE, seed=2)}
    return Case(
        pipe=diffusers.ZImageControlNetInpaintPipeline(**components(), controlnet=controlnet(2 * LATENTS + 1)),
        call={**CALL, **pictures},
    )


def ZImageOmniPipeline() -> Case:
    made = components(siglip_feat_dim=16)
    made["vae"].to(torch.bfloat16)  # the pipeline casts the picture whatever the precision of its autoencoder
    return Case(
        pipe=diffusers.ZImageOmniPipeline(**made, **siglip()),
        call={**CALL, "image": parts.photo(64)},  # smaller pictures are refused
    )
