"""FLUX.1, with true classifier-free guidance."""

from typing import Any

import diffusers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxControlNetModel, FluxTransformer2DModel

from support import parts
from support.case import STEPS, Case

LATENTS = 4
SIZE = 16
DENOISER = {
    "in_channels": 4 * LATENTS, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": parts.WIDTH, "axes_dims_rope": (4, 4, 8),
}  # fmt: skip
CALL = {
    "prompt": "a red fox", "num_inference_steps": STEPS, "height": SIZE, "width": SIZE, "max_sequence_length": 24,
    "output_type": "latent",
}  # fmt: skip
TRUE = {**CALL, "negative_prompt": "blurry", "true_cfg_scale": 4.0}
INPAINT = {"image": parts.picture(SIZE), "mask_image": (parts.picture(SIZE, channels=1) > 0.5).float()}


def autoencoder() -> AutoencoderKL:
    return parts.autoencoder(LATENTS, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False)


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)


def components() -> dict[str, Any]:
    return {
        "transformer": FluxTransformer2DModel(**DENOISER, pooled_projection_dim=parts.WIDTH), "scheduler": scheduler(),
        "vae": autoencoder(), "text_encoder": parts.clip_text(), "tokenizer": parts.tokenizer(),
        "text_encoder_2": parts.t5(), "tokenizer_2": parts.tokenizer(24),
    }  # fmt: skip


def FluxPipeline() -> Case:
    return Case(pipe=diffusers.FluxPipeline(**components()), call=TRUE)


def FluxImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.FluxImg2ImgPipeline(**components()),
        call={**TRUE, "image": parts.picture(SIZE), "strength": 1.0},
    )


def FluxInpaintPipeline() -> Case:
    return Case(pipe=diffusers.FluxInpaintPipeline(**components()), call={**TRUE, **INPAINT, "strength": 1.0})


def FluxKontextPipeline() -> Case:
    return Case(
        pipe=diffusers.FluxKontextPipeline(**components()),
        call={**TRUE, "image": parts.picture(SIZE), "max_area": SIZE**2, "_auto_resize": False},
    )


def FluxKontextInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.FluxKontextInpaintPipeline(**components()),
        call={**TRUE, **INPAINT, "max_area": SIZE**2, "_auto_resize": False, "strength": 1.0},
    )


def FluxControlNetPipeline() -> Case:
    control = FluxControlNetModel(**DENOISER, pooled_projection_dim=parts.WIDTH)
    return Case(
        pipe=diffusers.FluxControlNetPipeline(**components(), controlnet=control),
        call={**TRUE, "control_image": parts.picture(SIZE), "controlnet_conditioning_scale": 0.5},
    )
