"""LongCat AudioDiT."""

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, LongCatAudioDiTTransformer, LongCatAudioDiTVae

from support import parts
from support.case import STEPS, Case


def transformer() -> LongCatAudioDiTTransformer:
    return LongCatAudioDiTTransformer(dit_dim=32, dit_depth=2, dit_heads=4, dit_text_dim=parts.WIDTH, latent_dim=8)


def vae() -> LongCatAudioDiTVae:
    return LongCatAudioDiTVae(
        channels=8, c_mults=[1, 2], strides=[2], latent_dim=8, encoder_latent_dim=16, downsampling_ratio=2,
        sample_rate=16,
    )  # fmt: skip


def LongCatAudioDiTPipeline() -> Case:
    return Case(
        pipe=diffusers.LongCatAudioDiTPipeline(
            transformer=transformer(), vae=vae(), text_encoder=parts.t5(umt5=True), tokenizer=parts.tokenizer(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, invert_sigmas=True),
        ),
        call={
            "prompt": "a red fox", "audio_duration_s": 1.0, "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "output_type": "latent",
        },
    )  # fmt: skip
