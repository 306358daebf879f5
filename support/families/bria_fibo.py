"""Bria Fibo."""

from typing import Any

import diffusers
from diffusers import AutoencoderKLWan, BriaFiboTransformer2DModel

from support import parts
from support.case import STEPS, Case
from support.families import flux

LATENTS = 16
SIZE = 64
CALL = {
    "prompt": '{"edit_instruction": "a red fox"}', "negative_prompt": "blurry", "num_inference_steps": STEPS,
    "guidance_scale": 5.0, "height": SIZE, "width": SIZE, "output_type": "latent",
}  # fmt: skip


def autoencoder(latents: int = LATENTS, *, patch: int = 4, halvings: int = 2) -> AutoencoderKLWan:
    """Return an autoencoder of pictures as films of one frame, which shrinks by patch * 2 ** halvings."""
    channels = 3 * patch**2
    return AutoencoderKLWan(
        base_dim=8, z_dim=latents, dim_mult=[1] * (halvings + 1), num_res_blocks=1, patch_size=patch,
        temperal_downsample=[False] * halvings, latents_mean=[0.1] * latents, latents_std=[1.5] * latents,
        in_channels=channels, out_channels=channels, scale_factor_spatial=patch * 2**halvings,
    ).eval()  # fmt: skip


def components() -> dict[str, Any]:
    sizes = {**flux.DENOISER, "in_channels": LATENTS, "joint_attention_dim": 2 * parts.WIDTH}
    return {
        "transformer": BriaFiboTransformer2DModel(**sizes, text_encoder_dim=parts.WIDTH),
        "scheduler": flux.scheduler(), "vae": autoencoder(),
        "text_encoder": parts.language_model("SmolLM3", layers=4, head="ForCausalLM"),
        "tokenizer": parts.tokenizer(512),
    }  # fmt: skip


def BriaFiboPipeline() -> Case:
    return Case(pipe=diffusers.BriaFiboPipeline(**components()), call={**CALL, "prompt": "a red fox"})


def BriaFiboEditPipeline() -> Case:
    return Case(pipe=diffusers.BriaFiboEditPipeline(**components()), call={**CALL, "image": parts.photo(SIZE)})
