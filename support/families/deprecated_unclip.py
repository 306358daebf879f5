"""unCLIP."""

from typing import Any

import diffusers
from diffusers import PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip import UnCLIPTextProjModel

from support import parts
from support.case import STEPS, Case

STACK: dict[str, Any] = {
    "layers_per_block": 1, "block_out_channels": (16, 32), "norm_num_groups": 8,
    "resnet_time_scale_shift": "scale_shift",
}  # fmt: skip


def prior() -> PriorTransformer:
    return PriorTransformer(
        num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=parts.WIDTH, num_embeddings=16
    )


def decoder() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=6, class_embed_type="identity", attention_head_dim=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=parts.WIDTH, **STACK,
    )  # fmt: skip


def super_resolution() -> UNet2DModel:
    return UNet2DModel(
        sample_size=32, in_channels=6, out_channels=3, attention_head_dim=8,
        down_block_types=("ResnetDownsampleBlock2D",) * 2, up_block_types=("ResnetUpsampleBlock2D",) * 2, **STACK,
    )  # fmt: skip


def components() -> dict[str, Any]:
    return {
        "decoder": decoder(), "text_encoder": parts.clip_text(projection=True), "tokenizer": parts.tokenizer(),
        "text_proj": UnCLIPTextProjModel(
            clip_embeddings_dim=parts.WIDTH, time_embed_dim=64, cross_attention_dim=parts.WIDTH
        ),
        "super_res_first": super_resolution(), "super_res_last": super_resolution(),
        "decoder_scheduler": UnCLIPScheduler(variance_type="learned_range"), "super_res_scheduler": UnCLIPScheduler(),
    }  # fmt: skip


CALL = {
    "decoder_num_inference_steps": STEPS, "super_res_num_inference_steps": STEPS, "decoder_guidance_scale": 6.0,
    "output_type": "np",
}  # fmt: skip


def UnCLIPPipeline() -> Case:
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    return Case(
        pipe=diffusers.UnCLIPPipeline(**components(), prior=prior(), prior_scheduler=scheduler),
        call={**CALL, "prompt": "a red fox", "prior_num_inference_steps": STEPS, "prior_guidance_scale": 4.0},
    )


def UnCLIPImageVariationPipeline() -> Case:
    looker = {"feature_extractor": parts.clip_pictures(), "image_encoder": parts.clip_vision(projection=True)}
    pipe = diffusers.UnCLIPImageVariationPipeline(**components(), **looker)
    return Case(pipe=pipe, call={**CALL, "image": parts.picture()})
