"""Paint by Example."""

import diffusers
import transformers
from diffusers import PNDMScheduler
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder

from support import parts
from support.case import STEPS, Case
from support.families import stable_diffusion


def image_encoder() -> PaintByExampleImageEncoder:
    config = transformers.CLIPVisionConfig(
        hidden_size=parts.WIDTH, intermediate_size=37, projection_dim=parts.WIDTH, num_hidden_layers=4,
        num_attention_heads=4, image_size=32, patch_size=16,
    )  # fmt: skip
    return PaintByExampleImageEncoder(config)


def PaintByExamplePipeline() -> Case:
    return Case(
        pipe=diffusers.PaintByExamplePipeline(
            unet=stable_diffusion.unet(in_channels=9), vae=parts.autoencoder(), image_encoder=image_encoder(),
            feature_extractor=parts.clip_pictures(), safety_checker=None,
            scheduler=PNDMScheduler(**stable_diffusion.BETAS, skip_prk_steps=True),
        ),
        call={
            "example_image": parts.picture(seed=1), "image": parts.picture(), "mask_image": stable_diffusion.mask(),
            "num_inference_steps": STEPS, "guidance_scale": 6.0, "output_type": "latent",
        },
    )  # fmt: skip
