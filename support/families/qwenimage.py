"""Qwen-Image."""

from typing import Any

import diffusers
from diffusers import AutoencoderKLQwenImage, QwenImageControlNetModel, QwenImageTransformer2DModel

from support import parts
from support.case import STEPS, Case
from support.families import flux

LATENTS = 8
SIZE = 16
DENOISER = {
    "in_channels": 4 * LATENTS, "out_channels": LATENTS, "num_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": parts.WIDTH, "axes_dims_rope": (4, 4, 8),
}  # fmt: skip
# long, to count beside the pipelines' own words, of which the tokenizer of bytes makes hundreds of tokens
PROMPT = "a red fox jumps over the river, " * 6
CALL = {
    "prompt": PROMPT, "negative_prompt": "blurry", "num_inference_steps": STEPS, "true_cfg_scale": 4.0,
    "height": SIZE, "width": SIZE, "output_type": "latent",
}  # fmt: skip
MASK = (parts.picture(SIZE, channels=1) > 0.5).float()


def autoencoder(halvings: int = 1, *, width: int = 4, channels: int = 3) -> AutoencoderKLQwenImage:
    made = AutoencoderKLQwenImage(
        base_dim=width, z_dim=LATENTS, dim_mult=[1] * (halvings + 1), num_res_blocks=0, input_channels=channels,
        temperal_downsample=[False] * halvings, latents_mean=[0.1] * LATENTS, latents_std=[1.5] * LATENTS,
    )  # fmt: skip
    for weight in made.decoder.parameters():
        weight.data *= 3 if weight.dim() > 3 else 1  # new weights damp what passes them: nothing would come through
    return made.eval()


def components(**options: Any) -> dict[str, Any]:
    return {
        "transformer": QwenImageTransformer2DModel(**DENOISER, **options), "scheduler": flux.scheduler(),
        "vae": autoencoder(), "text_encoder": parts.vision_language("Qwen2_5_VL"),
        "tokenizer": parts.vision_tokenizer(),
    }  # fmt: skip


def editing(**options: Any) -> dict[str, Any]:
    """Return components whose autoencoder shrinks by 64: these pipelines resize every picture to 1024 x 1024."""
    return {**components(**options), "vae": autoencoder(6), "processor": parts.vision_processor()}


EDIT = {**CALL, "height": 256, "width": 256}


def QwenImagePipeline() -> Case:
    return Case(pipe=diffusers.QwenImagePipeline(**components()), call=CALL)


def QwenImageImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.QwenImageImg2ImgPipeline(**components()),
        call={**CALL, "image": parts.picture(SIZE), "strength": 1.0},
    )


def QwenImageInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.QwenImageInpaintPipeline(**components()),
        call={**CALL, "image": parts.picture(SIZE), "mask_image": MASK, "strength": 1.0},
    )


def QwenImageControlNetPipeline() -> Case:
    control = QwenImageControlNetModel(**DENOISER)
    return Case(
        pipe=diffusers.QwenImageControlNetPipeline(**components(), controlnet=control),
        call={**CALL, "control_image": parts.picture(SIZE), "controlnet_conditioning_scale": 0.5},
    )


def QwenImageControlNetInpaintPipeline() -> Case:
    control = QwenImageControlNetModel(**DENOISER, extra_condition_channels=4)
    return Case(
        pipe=diffusers.QwenImageControlNetInpaintPipeline(**components(), controlnet=control),
        call={**CALL, "control_image": parts.photo(SIZE), "control_mask": parts.photo(SIZE, seed=1).convert("L")},
    )


def QwenImageEditPipeline() -> Case:
    return Case(pipe=diffusers.QwenImageEditPipeline(**editing()), call={**EDIT, "image": parts.photo()})


def QwenImageEditPlusPipeline() -> Case:
    return Case(pipe=diffusers.QwenImageEditPlusPipeline(**editing()), call={**EDIT, "image": [parts.photo()]})


def QwenImageEditInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.QwenImageEditInpaintPipeline(**editing()),
        call={**EDIT, "image": parts.photo(), "mask_image": parts.photo(seed=1).convert("L"), "strength": 1.0},
    )


def QwenImageLayeredPipeline() -> Case:
    given = {**editing(use_additional_t_cond=True, use_layer3d_rope=True), "vae": autoencoder(6, width=2, channels=4)}
    sized = {name: value for name, value in CALL.items() if name not in ("height", "width")}
    return Case(
        pipe=diffusers.QwenImageLayeredPipeline(**given),
        call={**sized, "image": parts.photo().convert("RGBA"), "layers": 1, "resolution": 640, "output_type": "pt"},
    )
