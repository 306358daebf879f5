"""OmniGen, from a text alone."""

from typing import Any
from unittest import mock

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, OmniGenTransformer2DModel
from diffusers.pipelines.omnigen import pipeline_omnigen
from diffusers.pipelines.omnigen.processor_omnigen import OmniGenCollator, OmniGenMultiModalProcessor

from support import parts
from support.case import STEPS, Case


class TextProcessor(OmniGenMultiModalProcessor):
    """The processor without its way of preparing pictures, which needs torchvision."""

    def __init__(self, text_tokenizer: Any, max_image_size: int = 1024) -> None:
        self.text_tokenizer = text_tokenizer
        self.max_image_size = max_image_size
        self.collator = OmniGenCollator(hidden_size=parts.WIDTH)


def OmniGenPipeline() -> Case:
    # A rotary position has a factor for every second number of a head.
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4}
    denoiser = OmniGenTransformer2DModel(
        in_channels=4, patch_size=2, hidden_size=parts.WIDTH, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=37, num_layers=2, pad_token_id=0, vocab_size=parts.VOCABULARY, rope_scaling=factors,
        max_position_embeddings=4096, pos_embed_max_size=16, time_step_dim=16,
    ).eval()  # fmt: skip
    with mock.patch.object(pipeline_omnigen, "OmniGenMultiModalProcessor", TextProcessor, create=True):
        pipe = diffusers.OmniGenPipeline(
            transformer=denoiser, scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
            vae=parts.autoencoder(blocks=4), tokenizer=parts.tokenizer(1024),
        )  # fmt: skip
    call = {
        "prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 3.0, "height": 32, "width": 32,
        "output_type": "latent",
    }  # fmt: skip
    return Case(pipe=pipe, call=call)
