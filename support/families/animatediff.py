"""AnimateDiff."""

from typing import Any

import diffusers
from diffusers import DDIMScheduler, MotionAdapter, SparseControlNetModel

from support import parts
from support.case import STEPS, Case
from support.families import controlnet
from support.families import stable_diffusion as sd
from support.families import stable_diffusion_xl as xl

FRAMES = 3
CALL = {**sd.CALL, "negative_prompt": "blurry", "num_frames": FRAMES, **sd.SIZE}


def adapter(**options: Any) -> MotionAdapter:
    return MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=8,
        **options,
    )  # fmt: skip


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False)


def components() -> dict[str, Any]:
    return {**sd.bare(), "motion_adapter": adapter(), "scheduler": scheduler()}


def sparse_controlnet() -> SparseControlNetModel:
    """Return a network that is controlled by pictures rather than by their latents."""
    return SparseControlNetModel(
        in_channels=4, conditioning_channels=3, down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion"),
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=parts.WIDTH,
        attention_head_dim=4, conditioning_embedding_out_channels=controlnet.CONDITION_CHANNELS,
        motion_num_attention_heads=2, use_simplified_condition_embedding=False,
    )  # fmt: skip


def controlled() -> dict[str, Any]:
    made = components()
    return {**made, "controlnet": controlnet.controlnet(made["unet"])}


def film() -> dict[str, Any]:
    """Return a call that changes a film; its first step of four is left out."""
    call = {name: value for name, value in CALL.items() if name != "num_frames"}
    return {**call, "video": parts.film(FRAMES), "strength": 0.8, "num_inference_steps": STEPS + 1}


def AnimateDiffPipeline() -> Case:
    return Case(pipe=diffusers.AnimateDiffPipeline(**components()), call=CALL)


def AnimateDiffSDXLPipeline() -> Case:
    pieces = {**xl.components(), "motion_adapter": adapter(), "scheduler": scheduler()}
    return Case(pipe=diffusers.AnimateDiffSDXLPipeline(**pieces), call=CALL)


def AnimateDiffControlNetPipeline() -> Case:
    return Case(
        pipe=diffusers.AnimateDiffControlNetPipeline(**controlled()),
        call={**CALL, "conditioning_frames": parts.film(FRAMES)},
    )


def AnimateDiffSparseControlNetPipeline() -> Case:
    return Case(
        pipe=diffusers.AnimateDiffSparseControlNetPipeline(**components(), controlnet=sparse_controlnet()),
        call={**CALL, "conditioning_frames": parts.film(2), "controlnet_frame_indices": [0, FRAMES - 1]},
    )


def AnimateDiffVideoToVideoPipeline() -> Case:
    return Case(pipe=diffusers.AnimateDiffVideoToVideoPipeline(**components()), call=film())


def AnimateDiffVideoToVideoControlNetPipeline() -> Case:
    return Case(
        pipe=diffusers.AnimateDiffVideoToVideoControlNetPipeline(**controlled()),
        call={**film(), "conditioning_frames": parts.film(FRAMES, seed=1)},
    )
