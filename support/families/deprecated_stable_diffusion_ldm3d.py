"""LDM3D."""

import diffusers
from diffusers import AutoencoderKL

from support.case import Case
from support.families import stable_diffusion


def vae() -> AutoencoderKL:
    """Return an autoencoder of pictures with their depth."""
    return AutoencoderKL(
        in_channels=6, out_channels=6, latent_channels=4, norm_num_groups=8, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def StableDiffusionLDM3DPipeline() -> Case:
    made = {**stable_diffusion.unchecked(), "vae": vae(), "image_encoder": None}
    return Case(
        pipe=diffusers.StableDiffusionLDM3DPipeline(**made),
        call={**stable_diffusion.CALL, "height": 32, "width": 32, "output_type": "np"},
    )
