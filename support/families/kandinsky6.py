"""Kandinsky 6."""

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky6Transformer3DModel, MMAudioVAE, MMAudioVocoder

from support import parts
from support.case import Case
from support.families import hunyuan_video, kandinsky5


def transformer() -> Kandinsky6Transformer3DModel:
    return Kandinsky6Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_audio_dim=4, out_audio_dim=4, in_text_dim=parts.WIDTH,
        in_text_dim2=parts.WIDTH, time_dim=32, model_dim=32, ff_dim=64, num_text_blocks=2, num_visual_blocks=2,
        axes_dims=(4, 6, 6), visual_token_type_num_embeddings=2,
    )  # fmt: skip


def audio_vae() -> MMAudioVAE:
    return MMAudioVAE(
        mel_bins=8, latent_channels=4, hidden_channels=16, channel_multipliers=(1, 2), layers_per_block=1,
        sample_rate=1024, n_fft=64, hop_length=16,
    )  # fmt: skip


def vocoder() -> MMAudioVocoder:
    return MMAudioVocoder(
        num_mels=8, upsample_initial_channel=16, upsample_rates=(2, 2), upsample_kernel_sizes=(4, 4),
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
    )  # fmt: skip


def Kandinsky6TI2VAPipeline() -> Case:
    return Case(
        pipe=diffusers.Kandinsky6TI2VAPipeline(
            transformer=transformer(), vae=hunyuan_video.vae(), audio_vae=audio_vae(), vocoder=vocoder(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0), **kandinsky5.encoders(),
        ),
        call={**kandinsky5.CALL, "num_frames": 5},
    )  # fmt: skip
