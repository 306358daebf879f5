"""GLM-Image."""

import diffusers
import torch
from diffusers import AutoencoderKL, GlmImageTransformer2DModel
from transformers import ByT5Tokenizer

from support import parts
from support.case import STEPS, Case
from support.families import flux

LATENTS = 4
SIZE = 32
CODEBOOK = 32


def GlmImagePipeline() -> Case:
    denoiser = GlmImageTransformer2DModel(
        patch_size=2, in_channels=LATENTS, out_channels=LATENTS, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, text_embed_dim=parts.WIDTH, time_embed_dim=32, condition_dim=8,
        prior_vq_quantizer_codebook_size=CODEBOOK,
    )  # fmt: skip
    vae: AutoencoderKL = parts.autoencoder(
        LATENTS, blocks=3, latents_mean=[0.1] * LATENTS, latents_std=[1.5] * LATENTS, use_quant_conv=False,
        use_post_quant_conv=False,
    )  # fmt: skip
    pipe = diffusers.GlmImagePipeline(
        tokenizer=ByT5Tokenizer(extra_ids=0), processor=None, text_encoder=parts.t5(), vision_language_encoder=None,
        vae=vae, transformer=denoiser, scheduler=flux.scheduler(),
    )  # fmt: skip
    tokens = (SIZE // 4 // 2) ** 2
    prior = torch.randint(CODEBOOK, (1, tokens), generator=torch.Generator().manual_seed(0))
    return Case(
        pipe=pipe,
        call={
            "prompt": "a sign that says 'red fox'", "prior_token_ids": prior, "num_inference_steps": STEPS,
            "guidance_scale": 1.5, "height": SIZE, "width": SIZE, "output_type": "latent",
        },
    )  # fmt: skip
