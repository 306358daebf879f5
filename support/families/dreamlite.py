"""DreamLite, editing a picture: three branches and two scales."""

import diffusers
from diffusers import AutoencoderTiny, DreamLiteUNetModel, FlowMatchEulerDiscreteScheduler

from support import parts
from support.case import STEPS, Case


def DreamLitePipeline() -> Case:
    denoiser = DreamLiteUNetModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
        down_block_types=("DreamLiteCrossAttnNoSelfAttnDownBlock2D", "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", "DreamLiteUpBlock2D"), cross_attention_dim=24,
        encoder_hid_dim=parts.WIDTH, encoder_hid_dim_type="text_proj_rms", use_linear_projection=True, ff_mult=2,
    )  # fmt: skip
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).eval()  # fmt: skip
    pipe = diffusers.DreamLitePipeline(
        text_encoder=parts.vision_language("Qwen3VL"), tokenizer=parts.vision_tokenizer(),
        processor=parts.vision_processor(16), vae=vae, unet=parts.lively(denoiser),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )  # fmt: skip
    call = {
        "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 3.5,
        "image_guidance_scale": 1.5, "image": parts.photo(), "height": 32, "width": 32, "output_type": "latent",
    }  # fmt: skip
    return Case(pipe=pipe, call=call)
