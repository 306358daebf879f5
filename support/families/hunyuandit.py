"""HunyuanDiT."""

from typing import Any

import diffusers
from diffusers import DDPMScheduler, HunyuanDiT2DModel
from transformers import BertConfig, BertModel

from support import parts
from support.case import STEPS, Case

TOKENS = {"text_len": 77, "text_len_t5": 256}  # the pipelines pad to these lengths
LAYERS = 4
SHAPE = {
    "sample_size": 8, "patch_size": 2, "in_channels": 4, "attention_head_dim": 8, "num_attention_heads": 4,
    "hidden_size": 32, "cross_attention_dim": parts.WIDTH, "cross_attention_dim_t5": parts.WIDTH,
    "pooled_projection_dim": 16, **TOKENS,
}  # fmt: skip


def bert() -> BertModel:
    config = BertConfig(
        vocab_size=parts.VOCABULARY, hidden_size=parts.WIDTH, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=TOKENS["text_len"],
    )  # fmt: skip
    return BertModel(config)


def components() -> dict[str, Any]:
    return {
        "transformer": HunyuanDiT2DModel(num_layers=LAYERS, **SHAPE),
        "scheduler": DDPMScheduler(beta_schedule="scaled_linear", beta_end=0.03, prediction_type="v_prediction"),
        "vae": parts.autoencoder(blocks=4), "text_encoder": bert(), "tokenizer": parts.tokenizer(TOKENS["text_len"]),
        "text_encoder_2": parts.t5(), "tokenizer_2": parts.tokenizer(TOKENS["text_len_t5"]), "safety_checker": None,
        "feature_extractor": None, "requires_safety_checker": False,
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": 64, "width": 64, "use_resolution_binning": False, "output_type": "latent",
}  # fmt: skip


def HunyuanDiTPipeline() -> Case:
    return Case(pipe=diffusers.HunyuanDiTPipeline(**components()), call=CALL)
