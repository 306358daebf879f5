"""ConsisID."""

import torch
from diffusers import CogVideoXDPMScheduler, ConsisIDTransformer3DModel
from diffusers.pipelines.consisid import pipeline_consisid  # diffusers exports it with opencv only

from support import parts
from support.case import Case
from support.families import cogvideo

FACE = 16  # width of the face features
LAYERS = 2  # depth of the pyramid of face features


def transformer() -> ConsisIDTransformer3DModel:
    return ConsisIDTransformer3DModel(
        **cogvideo.TRANSFORMER, in_channels=2 * cogvideo.LATENTS, use_rotary_positional_embeddings=True,
        is_train_face=True, cross_attn_interval=1, cross_attn_dim_head=8, cross_attn_num_heads=2, LFE_id_dim=FACE,
        LFE_vit_dim=FACE, LFE_depth=LAYERS, LFE_dim_head=8, LFE_num_heads=2, LFE_num_id_token=2, LFE_num_querie=2,
        LFE_output_dim=32, LFE_ff_mult=1, LFE_num_scale=LAYERS,
    )  # fmt: skip


def ConsisIDPipeline() -> Case:
    pipe = pipeline_consisid.ConsisIDPipeline(
        tokenizer=parts.tokenizer(), text_encoder=parts.t5(), vae=cogvideo.autoencoder(), transformer=transformer(),
        scheduler=CogVideoXDPMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
        ),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    face = torch.randn(1, FACE, generator=generator)
    hidden = torch.randn(LAYERS, 1, 2, FACE, generator=generator)
    return Case(
        pipe=pipe,
        call={
            **cogvideo.CALL, "image": parts.picture(cogvideo.SIZE), "num_frames": cogvideo.FRAMES,
            "id_cond": face, "id_vit_hidden": list(hidden),
        },
    )  # fmt: skip
