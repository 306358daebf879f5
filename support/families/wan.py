"""Wan 2.1 and 2.2."""

from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel

from support import parts
from support.case import STEPS, Case

# The second and third extent of a rotary position take an even share of the head: 12 gives 4 + 4 + 4.
SHAPE: dict[str, Any] = {
    "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": parts.WIDTH, "freq_dim": 16, "ffn_dim": 32,
    "num_layers": 2, "rope_max_seq_len": 32,
}  # fmt: skip


def transformer(in_channels: int = 16, **options: Any) -> WanTransformer3DModel:
    return WanTransformer3DModel(**SHAPE, in_channels=in_channels, **options).eval()


def vae(**options: Any) -> AutoencoderKLWan:
    """Return a video autoencoder that shrinks pictures by 8 and time by 4."""
    return AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **options).eval()


def scheduler(flow_shift: float = 3.0) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=flow_shift
    )


def text() -> dict[str, Any]:
    return {"tokenizer": parts.tokenizer(), "text_encoder": parts.t5(umt5=True)}


def components(**options: Any) -> dict[str, Any]:
    return {**text(), "vae": vae(), "scheduler": scheduler(), "transformer": transformer(**options)}


def vision() -> dict[str, Any]:
    return {"image_encoder": parts.clip_vision(), "image_processor": parts.clip_pictures()}


def encoded(pipe: Any) -> dict[str, Any]:
    """Return the call with its texts encoded already: most of these pipelines need ftfy, an extra package, for that."""
    call = {**CALL, "prompt": None, "negative_prompt": None}
    for name in ("prompt", "negative_prompt"):
        tokens = pipe.tokenizer(CALL[name], padding="max_length", max_length=16, return_tensors="pt")
        with torch.no_grad():
            call[f"{name}_embeds"] = pipe.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return call


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": 32, "width": 32, "max_sequence_length": 16, "output_type": "latent",
}  # fmt: skip


def WanPipeline() -> Case:
    return Case(pipe=diffusers.WanPipeline(**components()), call={**CALL, "num_frames": 5})


def WanImageToVideoPipeline() -> Case:
    parts_of = components(in_channels=36, image_dim=parts.WIDTH, added_kv_proj_dim=24)
    pipe = diffusers.WanImageToVideoPipeline(**parts_of, **vision())
    return Case(pipe=pipe, call={**encoded(pipe), "num_frames": 5, "image": parts.photo()})


def WanVideoToVideoPipeline() -> Case:
    pipe = diffusers.WanVideoToVideoPipeline(**components())
    return Case(pipe=pipe, call={**encoded(pipe), "video": parts.film(5)})


def WanVACEPipeline() -> Case:
    denoiser = diffusers.WanVACETransformer3DModel(**SHAPE, vace_layers=[0, 1], vace_in_channels=96)
    pipe = diffusers.WanVACEPipeline(**{**components(), "transformer": denoiser})
    references = [parts.photo(seed=9)]
    return Case(
        pipe=pipe,
        call={
            **encoded(pipe),
            "num_frames": 5,
            "video": parts.film(5),
            "mask": parts.film(5),
            "reference_images": references,
        },
    )


def WanAnimatePipeline() -> Case:
    denoiser = diffusers.WanAnimateTransformer3DModel(
        **SHAPE, image_dim=parts.WIDTH, added_kv_proj_dim=24, inject_face_latents_blocks=2, motion_encoder_size=16,
        motion_encoder_channel_sizes={"4": 16, "8": 16, "16": 16}, motion_style_dim=8, motion_dim=4,
        motion_encoder_dim=16, face_encoder_hidden_dim=16, face_encoder_num_heads=2,
    )  # fmt: skip
    pipe = diffusers.WanAnimatePipeline(**{**components(), "transformer": denoiser}, **vision())
    films = {"pose_video": parts.film(5), "face_video": parts.film(5)}
    return Case(pipe=pipe, call={**encoded(pipe), **films, "image": parts.photo(), "segment_frame_length": 5})
