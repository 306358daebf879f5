"""FLUX.2 Klein, not distilled."""

from typing import Any

import diffusers
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

from support import parts
from support.case import STEPS, Case
from support.families import flux

LATENTS = 4
SIZE = 16
CALL = {
    "prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 4.0, "height": SIZE, "width": SIZE,
    "max_sequence_length": 24, "text_encoder_out_layers": (1, 2, 3), "output_type": "latent",
}  # fmt: skip


def autoencoder(latents: int = LATENTS) -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        latent_channels=latents, sample_size=32, norm_num_groups=8, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip


def components() -> dict[str, Any]:
    denoiser = Flux2Transformer2DModel(
        in_channels=4 * LATENTS, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=3 * parts.WIDTH, timestep_guidance_channels=32, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    return {
        "transformer": denoiser, "scheduler": flux.scheduler(), "vae": autoencoder(),
        "text_encoder": parts.language_model("Qwen3", head="ForCausalLM"), "tokenizer": parts.tokenizer(512),
    }  # fmt: skip


def Flux2KleinPipeline() -> Case:
    return Case(pipe=diffusers.Flux2KleinPipeline(**components()), call=CALL)


def Flux2KleinInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.Flux2KleinInpaintPipeline(**components()), call={**CALL, **flux.INPAINT, "strength": 1.0}
    )
