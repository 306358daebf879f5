"""Kandinsky 2.1, and the components that it shares with Kandinsky 2.2."""

from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, PriorTransformer, UnCLIPScheduler, UNet2DConditionModel, VQModel
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP

from support import parts
from support.case import STEPS, Case


def unet(in_channels: int = 4, **options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, in_channels=in_channels, out_channels=8, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), norm_num_groups=8, attention_head_dim=8,
        cross_attention_dim=parts.WIDTH, encoder_hid_dim=parts.WIDTH, resnet_time_scale_shift="scale_shift",
        **{"encoder_hid_dim_type": "text_image_proj", "addition_embed_type": "text_image", **options},
    )  # fmt: skip


def movq(blocks: int = 2) -> VQModel:
    return VQModel(
        latent_channels=4, num_vq_embeddings=12, vq_embed_dim=4, block_out_channels=(32,) * blocks, norm_num_groups=32,
        layers_per_block=1, norm_type="spatial", down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
    )  # fmt: skip


def text_encoder() -> MultilingualCLIP:
    config = MCLIPConfig(
        transformerDimSize=parts.WIDTH, imageDimSize=parts.WIDTH, hidden_size=parts.WIDTH, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=37, vocab_size=parts.VOCABULARY, max_position_embeddings=80,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return MultilingualCLIP(config)


def prior() -> dict[str, Any]:
    return {
        "prior": PriorTransformer(
            num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=parts.WIDTH, num_embeddings=16
        ),
        "scheduler": UnCLIPScheduler(prediction_type="sample", clip_sample_range=10.0),
        "text_encoder": parts.clip_text(projection=True), "tokenizer": parts.tokenizer(),
        "image_encoder": parts.clip_vision(projection=True), "image_processor": parts.clip_pictures(),
    }  # fmt: skip


def prior_of_combined() -> dict[str, Any]:
    return {f"prior_{name}": part for name, part in prior().items()}


def components(in_channels: int = 4) -> dict[str, Any]:
    return {
        "unet": unet(in_channels), "movq": movq(), "text_encoder": text_encoder(),
        "tokenizer": parts.roberta_tokenizer(77),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
    }  # fmt: skip


def embeddings() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    names = ("image_embeds", "negative_image_embeds")
    return {name: torch.randn(1, parts.WIDTH, generator=draw) for name in names}


PRIOR = {"prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0}
DECODE = {"num_inference_steps": STEPS, "guidance_scale": 6.0, "height": 32, "width": 32, "output_type": "pt"}
CALL = {"prompt": "a red fox", **DECODE}
COMBINED = {**CALL, "prior_guidance_scale": 4.0, "prior_num_inference_steps": STEPS}
PARTIAL = {"num_inference_steps": STEPS + 1, "strength": 0.8}  # STEPS of the steps are run


def image() -> dict[str, torch.Tensor]:
    return {"image": parts.picture()}


def hole() -> dict[str, torch.Tensor]:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 16:] = 1
    return {"image": parts.picture(), "mask_image": mask}


def KandinskyPriorPipeline() -> Case:
    return Case(pipe=diffusers.KandinskyPriorPipeline(**prior()), call=PRIOR)


def KandinskyPipeline() -> Case:
    return Case(pipe=diffusers.KandinskyPipeline(**components()), call={**CALL, **embeddings()})


def KandinskyImg2ImgPipeline() -> Case:
    pipe = diffusers.KandinskyImg2ImgPipeline(**components())
    return Case(pipe=pipe, call={**CALL, **embeddings(), **image(), **PARTIAL})


def KandinskyInpaintPipeline() -> Case:
    pipe = diffusers.KandinskyInpaintPipeline(**components(in_channels=9))
    return Case(pipe=pipe, call={**CALL, **embeddings(), **hole()})


def KandinskyCombinedPipeline() -> Case:
    return Case(pipe=diffusers.KandinskyCombinedPipeline(**components(), **prior_of_combined()), call=COMBINED)


def KandinskyImg2ImgCombinedPipeline() -> Case:
    pipe = diffusers.KandinskyImg2ImgCombinedPipeline(**components(), **prior_of_combined())
    return Case(pipe=pipe, call={**COMBINED, **image(), **PARTIAL})


def KandinskyInpaintCombinedPipeline() -> Case:
    pipe = diffusers.KandinskyInpaintCombinedPipeline(**components(in_channels=9), **prior_of_combined())
    return Case(pipe=pipe, call={**COMBINED, **hole()})
