"""CogView3-Plus."""

import diffusers
from diffusers import CogVideoXDDIMScheduler, CogView3PlusTransformer2DModel

from support import parts
from support.case import STEPS, Case


def transformer() -> CogView3PlusTransformer2DModel:
    return CogView3PlusTransformer2DModel(
        in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4, out_channels=4,
        text_embed_dim=parts.WIDTH, time_embed_dim=16, condition_dim=4, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip


def CogView3PlusPipeline() -> Case:
    pipe = diffusers.CogView3PlusPipeline(
        tokenizer=parts.tokenizer(), text_encoder=parts.t5(), vae=parts.autoencoder(), transformer=transformer(),
        scheduler=CogVideoXDDIMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
        ),
    )  # fmt: skip
    return Case(
        pipe=pipe,
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            "height": 16, "width": 16, "max_sequence_length": 16, "output_type": "latent",
        },
    )  # fmt: skip
