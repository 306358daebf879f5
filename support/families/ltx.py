"""LTX-Video."""

from typing import Any

import diffusers
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXEulerAncestralRFScheduler,
    LTXVideoTransformer3DModel,
)

from support import parts
from support.case import STEPS, Case

LATENTS = 8
SIZE = 32
FRAMES = 9


def autoencoder() -> AutoencoderKLLTXVideo:
    """Return a video autoencoder that shrinks pictures by 16 and time by 4."""
    scaling = (True, True, False, False)
    layers = (1, 1, 1, 1, 1)
    return AutoencoderKLLTXVideo(
        latent_channels=LATENTS, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=layers, decoder_layers_per_block=layers, spatio_temporal_scaling=scaling,
        decoder_spatio_temporal_scaling=scaling,
    )  # fmt: skip


def transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=LATENTS, out_channels=LATENTS, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=2, caption_channels=parts.WIDTH,
    )  # fmt: skip


def components(scheduler: Any = None) -> dict[str, Any]:
    return {
        "scheduler": scheduler
        or FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
        ),
        "vae": autoencoder(), "text_encoder": parts.t5(), "tokenizer": parts.tokenizer(), "transformer": transformer(),
    }  # fmt: skip


CALL: dict[str, Any] = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 3.0,
    "num_frames": FRAMES, "height": SIZE, "width": SIZE, "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip


def LTXPipeline() -> Case:
    return Case(pipe=diffusers.LTXPipeline(**components()), call=CALL)


def LTXImageToVideoPipeline() -> Case:
    return Case(pipe=diffusers.LTXImageToVideoPipeline(**components()), call={**CALL, "image": parts.picture(SIZE)})


def LTXConditionPipeline() -> Case:
    return Case(
        pipe=diffusers.LTXConditionPipeline(**components(FlowMatchEulerDiscreteScheduler())),
        call={**CALL, "image": parts.picture(SIZE)},
    )


def LTXI2VLongMultiPromptPipeline() -> Case:
    return Case(
        pipe=diffusers.LTXI2VLongMultiPromptPipeline(**components(LTXEulerAncestralRFScheduler())),
        # Without a seed of its own the noise comes from the generator.
        call={**CALL, "cond_image": parts.picture(SIZE), "seed": None},
    )
