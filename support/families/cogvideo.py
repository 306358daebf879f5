"""CogVideoX."""

from typing import Any

import diffusers
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel

from support import parts
from support.case import STEPS, Case

LATENTS = 4
SIZE = 16
FRAMES = 9
TRANSFORMER = {
    "num_attention_heads": 3, "attention_head_dim": 16, "out_channels": LATENTS, "time_embed_dim": 16,
    "text_embed_dim": parts.WIDTH, "num_layers": 2, "sample_width": 4, "sample_height": 4, "sample_frames": FRAMES,
    "max_text_seq_length": 16,
}  # fmt: skip


def autoencoder() -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 3, up_block_types=("CogVideoXUpBlock3D",) * 3,
        block_out_channels=(8, 8, 8), latent_channels=LATENTS, layers_per_block=1, norm_num_groups=2,
        sample_height=SIZE, sample_width=SIZE,
    )  # fmt: skip


def components(**options: Any) -> dict[str, Any]:
    return {
        "tokenizer": parts.tokenizer(), "text_encoder": parts.t5(), "vae": autoencoder(),
        "transformer": CogVideoXTransformer3DModel(**TRANSFORMER, **options),
        "scheduler": CogVideoXDDIMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
        ),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": SIZE, "width": SIZE, "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip


def CogVideoXPipeline() -> Case:
    return Case(
        pipe=diffusers.CogVideoXPipeline(**components(in_channels=LATENTS)), call={**CALL, "num_frames": FRAMES}
    )


def CogVideoXImageToVideoPipeline() -> Case:
    parameters = {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True}
    return Case(
        pipe=diffusers.CogVideoXImageToVideoPipeline(**components(in_channels=2 * LATENTS, **parameters)),
        call={**CALL, "image": parts.picture(SIZE), "num_frames": FRAMES},
    )


def CogVideoXVideoToVideoPipeline() -> Case:
    return Case(
        pipe=diffusers.CogVideoXVideoToVideoPipeline(
            **components(in_channels=LATENTS, use_rotary_positional_embeddings=True)
        ),
        call={**CALL, "video": parts.film(FRAMES, SIZE), "strength": 1.0},
    )


def CogVideoXFunControlPipeline() -> Case:
    return Case(
        pipe=diffusers.CogVideoXFunControlPipeline(
            **components(in_channels=2 * LATENTS, use_rotary_positional_embeddings=True)
        ),
        call={**CALL, "control_video": parts.film(FRAMES, SIZE)},
    )
