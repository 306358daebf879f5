"""Pipelines with perturbed-attention guidance."""

from typing import Any

import diffusers
from diffusers import (
    AutoencoderDC,
    ControlNetModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    MotionAdapter,
    SanaTransformer2DModel,
)
from diffusers.pipelines.pag import pipeline_pag_kolors
from transformers import Gemma2Config, Gemma2Model

from support import parts
from support.case import STEPS, Case
from support.families import hunyuandit, kolors, pixart_alpha
from support.families import stable_diffusion as sd
from support.families import stable_diffusion_3 as sd3
from support.families import stable_diffusion_xl as xl

SIZE = {"height": 32, "width": 32}
PAG = {"pag_scale": 3.0}
CALL = {**sd.CALL, "negative_prompt": "blurry", **PAG}
XL_CALL = {**xl.CALL, **PAG}
SD3_CALL = {**sd3.CALL, **SIZE, **PAG}
IMAGE = {"image": parts.picture(), "strength": 0.7}
INPAINT = {"image": parts.picture(), "mask_image": parts.picture(channels=1), "strength": 1.0, **SIZE}


def sd_components() -> dict[str, Any]:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return {**sd.components(), "scheduler": scheduler, "requires_safety_checker": False}


def controlnet(unet: Any) -> ControlNetModel:
    """Return a ControlNet for the network, for control pictures twice as large as the latents."""
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))


def controlled(components: dict[str, Any]) -> dict[str, Any]:
    return {**components, "controlnet": controlnet(components["unet"])}


def StableDiffusionPAGPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionPAGPipeline(**sd_components()), call={**CALL, **SIZE})


def StableDiffusionPAGImg2ImgPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionPAGImg2ImgPipeline(**sd_components()), call={**CALL, **IMAGE})


def StableDiffusionPAGInpaintPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionPAGInpaintPipeline(**sd_components()), call={**CALL, **INPAINT})


def StableDiffusionControlNetPAGPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionControlNetPAGPipeline(**controlled(sd_components())),
        call={**CALL, **SIZE, "image": parts.picture()},
    )


def StableDiffusionControlNetPAGInpaintPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionControlNetPAGInpaintPipeline(**controlled(sd_components())),
        call={**CALL, **INPAINT, "control_image": parts.picture(seed=1)},
    )


def StableDiffusionXLPAGPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionXLPAGPipeline(**xl.components()), call={**XL_CALL, **SIZE})


def StableDiffusionXLPAGImg2ImgPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionXLPAGImg2ImgPipeline(**xl.components()), call={**XL_CALL, **IMAGE})


def StableDiffusionXLPAGInpaintPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusionXLPAGInpaintPipeline(**xl.components()), call={**XL_CALL, **INPAINT})


def StableDiffusionXLControlNetPAGPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetPAGPipeline(**controlled(xl.components())),
        call={**XL_CALL, **SIZE, "image": parts.picture()},
    )


def StableDiffusionXLControlNetPAGImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetPAGImg2ImgPipeline(**controlled(xl.components())),
        call={**XL_CALL, **SIZE, **IMAGE, "control_image": parts.picture(seed=1)},
    )


def KolorsPAGPipeline() -> Case:
    return Case(pipe=pipeline_pag_kolors.KolorsPAGPipeline(**kolors.components()), call={**kolors.CALL, **SIZE, **PAG})


def StableDiffusion3PAGPipeline() -> Case:
    return Case(pipe=diffusers.StableDiffusion3PAGPipeline(**sd3.components()), call=SD3_CALL)


def StableDiffusion3PAGImg2ImgPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusion3PAGImg2ImgPipeline(**sd3.components()),
        call={**SD3_CALL, **IMAGE, "strength": 0.6},
    )


def HunyuanDiTPAGPipeline() -> Case:
    return Case(pipe=diffusers.HunyuanDiTPAGPipeline(**hunyuandit.components()), call={**hunyuandit.CALL, **PAG})


def PixArtSigmaPAGPipeline() -> Case:
    components = pixart_alpha.components(sample_size=16, use_additional_conditions=False)
    return Case(pipe=diffusers.PixArtSigmaPAGPipeline(**components), call={**pixart_alpha.CALL, **PAG})


def AnimateDiffPAGPipeline() -> Case:
    adapter = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=8,
    )  # fmt: skip
    return Case(
        pipe=diffusers.AnimateDiffPAGPipeline(
            vae=parts.autoencoder(), text_encoder=parts.clip_text(), tokenizer=parts.tokenizer(), unet=sd.unet(),
            motion_adapter=adapter, scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False),
        ),
        call={**CALL, **SIZE, "num_frames": 3},
    )  # fmt: skip


def sana_components() -> dict[str, Any]:
    blocks = ("ResBlock", "EfficientViTBlock")
    return {
        "transformer": SanaTransformer2DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=2,
            num_cross_attention_heads=2, cross_attention_head_dim=12, cross_attention_dim=24,
            caption_channels=parts.WIDTH, sample_size=8,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "vae": AutoencoderDC(
            latent_channels=4, attention_head_dim=4, encoder_block_types=blocks, decoder_block_types=blocks,
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        ),
        "text_encoder": Gemma2Model(
            Gemma2Config(
                vocab_size=parts.VOCABULARY, hidden_size=parts.WIDTH, intermediate_size=37, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8,
                max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            )
        ),
        "tokenizer": parts.tokenizer(),
    }  # fmt: skip


def SanaPAGPipeline() -> Case:
    return Case(
        pipe=diffusers.SanaPAGPipeline(**sana_components()),
        call={
            "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
            **SIZE, **PAG, "use_resolution_binning": False, "clean_caption": False, "max_sequence_length": 16,
            "complex_human_instruction": None, "output_type": "latent",
        },
    )  # fmt: skip
