"""Kandinsky 5."""

from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5Transformer3DModel

from support import parts
from support.case import STEPS, Case
from support.families import hunyuan_video

ROOMY = 1024  # tokens: bytes are the tokens here, and the template of the prompt is long


def transformer(**options: Any) -> Kandinsky5Transformer3DModel:
    return Kandinsky5Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=parts.WIDTH, in_text_dim2=parts.WIDTH, time_dim=32, model_dim=32,
        ff_dim=64, num_text_blocks=2, num_visual_blocks=2, axes_dims=(4, 6, 6), **options,
    )  # fmt: skip


def encoders() -> dict[str, Any]:
    return {
        "text_encoder": parts.vision_language("Qwen2_5_VL"), "tokenizer": parts.vision_processor(),
        "text_encoder_2": parts.clip_text(length=77), "tokenizer_2": parts.tokenizer(77),
    }  # fmt: skip


def films() -> dict[str, Any]:
    return {
        "transformer": transformer(visual_cond=True), "vae": hunyuan_video.vae(), **encoders(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
    }  # fmt: skip


def pictures(**options: Any) -> dict[str, Any]:
    return {
        "transformer": transformer(**options), "vae": parts.autoencoder(blocks=4), **encoders(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }  # fmt: skip


CALL = {
    "prompt": "a red fox", "negative_prompt": "blurry", "num_inference_steps": STEPS, "guidance_scale": 6.0,
    "height": 32, "width": 32, "max_sequence_length": ROOMY, "output_type": "latent",
}  # fmt: skip


def small(pipe: Any) -> Any:
    """Let a pipeline that rounds to its list of large sizes make small pictures."""
    pipe.resolutions = [(32, 32)]
    return pipe


def Kandinsky5T2VPipeline() -> Case:
    return Case(pipe=diffusers.Kandinsky5T2VPipeline(**films()), call={**CALL, "num_frames": 5})


def Kandinsky5I2VPipeline() -> Case:
    # The first four frames of the latents are given the statistics of those after them.
    return Case(
        pipe=diffusers.Kandinsky5I2VPipeline(**films()), call={**CALL, "num_frames": 17, "image": parts.photo()}
    )


def Kandinsky5T2IPipeline() -> Case:
    return Case(pipe=small(diffusers.Kandinsky5T2IPipeline(**pictures())), call=CALL)


def Kandinsky5I2IPipeline() -> Case:
    pipe = small(diffusers.Kandinsky5I2IPipeline(**pictures(visual_cond=True)))
    return Case(pipe=pipe, call={**CALL, "image": parts.photo()})
