"""Latent Diffusion (text to image)."""

import diffusers
from diffusers import DDIMScheduler
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

from support import parts
from support.case import STEPS, Case
from support.families.stable_diffusion import unet


def text_encoder() -> LDMBertModel:
    config = LDMBertConfig(
        vocab_size=parts.VOCABULARY, max_position_embeddings=77, encoder_layers=2, encoder_ffn_dim=37,
        encoder_attention_heads=4, head_dim=8, d_model=parts.WIDTH,
    )  # fmt: skip
    return LDMBertModel(config)


def LDMTextToImagePipeline() -> Case:
    return Case(
        pipe=diffusers.LDMTextToImagePipeline(
            vqvae=parts.autoencoder(), bert=text_encoder(), tokenizer=parts.tokenizer(77), unet=unet(),
            scheduler=DDIMScheduler(),
        ),
        call={
            "prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "height": 64, "width": 64,
            "output_type": "pt",
        },
    )  # fmt: skip
