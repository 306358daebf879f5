"""PixArt-Alpha and PixArt-Sigma."""

from typing import Any

import diffusers
from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

from support import parts
from support.case import STEPS, Case


def transformer(**options: Any) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        num_attention_heads=3, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
        cross_attention_dim=24, caption_channels=parts.WIDTH, **options,
    )  # fmt: skip


def components(**options: Any) -> dict[str, Any]:
    return {
        "transformer": transformer(**options), "scheduler": DPMSolverMultistepScheduler(), "vae": parts.autoencoder(),
        "text_encoder": parts.t5(), "tokenizer": parts.tokenizer(),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": 32, "width": 32, "use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16,
    "output_type": "latent",
}  # fmt: skip


def PixArtAlphaPipeline() -> Case:
    # The size of the published model: with it the transformer is also told the resolution and the aspect ratio.
    return Case(pipe=diffusers.PixArtAlphaPipeline(**components(sample_size=128)), call=CALL)


def PixArtSigmaPipeline() -> Case:
    sizes = {"sample_size": 16, "use_additional_conditions": False}
    return Case(pipe=diffusers.PixArtSigmaPipeline(**components(**sizes)), call=CALL)
