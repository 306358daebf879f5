"""AudioLDM, and the components that it shares with its successors."""

from typing import Any

import diffusers
import transformers
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from support import parts
from support.case import STEPS, Case

TEXT: dict[str, Any] = {
    "vocab_size": parts.VOCABULARY, "hidden_size": parts.WIDTH, "intermediate_size": 37, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "projection_dim": parts.WIDTH, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(16, 32), class_embed_type="simple_projection", class_embeddings_concat=True,
        projection_class_embeddings_input_dim=parts.WIDTH,
    )  # fmt: skip


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=4, norm_num_groups=8, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def vocoder() -> Any:
    config = transformers.SpeechT5HifiGanConfig(
        model_in_dim=16, upsample_initial_channel=16, upsample_rates=[2, 2], upsample_kernel_sizes=[4, 4],
        resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], normalize_before=False, initializer_range=0.2,
    )  # fmt: skip
    return transformers.SpeechT5HifiGan(config)


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def clap() -> Any:
    """Return an encoder of text and sound."""
    sound = {
        "spec_size": 64, "window_size": 4, "num_mel_bins": 16, "patch_embeds_hidden_size": 16, "hidden_size": 32,
        "depths": [1, 1], "num_attention_heads": [2, 4], "num_hidden_layers": 2, "projection_dim": parts.WIDTH,
    }  # fmt: skip
    return transformers.ClapModel(
        transformers.ClapConfig(text_config=TEXT, audio_config=sound, projection_dim=parts.WIDTH)
    )


CALL = {
    "prompt": "a red fox", "num_inference_steps": STEPS, "guidance_scale": 6.0, "audio_length_in_s": 0.0041,
}  # fmt: skip


def AudioLDMPipeline() -> Case:
    listener = transformers.ClapTextModelWithProjection(transformers.ClapTextConfig(**TEXT))
    return Case(
        pipe=diffusers.AudioLDMPipeline(
            unet=unet(), vae=vae(), vocoder=vocoder(), scheduler=scheduler(), text_encoder=listener,
            tokenizer=parts.roberta_tokenizer(),
        ),
        call={**CALL, "output_type": "np"},
    )  # fmt: skip
