"""Wuerstchen."""

from typing import Any

import diffusers
from diffusers import DDPMWuerstchenScheduler
from diffusers.pipelines.deprecated.wuerstchen import WuerstchenDiffNeXt, WuerstchenPrior
from diffusers.pipelines.deprecated.wuerstchen.modeling_wuerstchen_diffnext import ResBlockStageB
from torch import nn

from support import parts
from support.case import STEPS, Case
from support.families.stable_cascade import CALL, SCALES, SIZE, image_embeddings, vqgan


def common() -> dict[str, Any]:
    return {
        "scheduler": DDPMWuerstchenScheduler(), "text_encoder": parts.clip_text(), "tokenizer": parts.tokenizer(),
    }  # fmt: skip


def prior() -> dict[str, Any]:
    network = WuerstchenPrior(c_in=4, c=32, c_cond=parts.WIDTH, c_r=32, depth=2, nhead=4)
    # The network divides by one minus half of these outputs: keep them away from one.
    network.out[1].weight.data *= 0.1
    return {"prior": network, **common()}


def decoder() -> dict[str, Any]:
    network = WuerstchenDiffNeXt(
        c_r=32, c_cond=32, c_hidden=[16, 32], nhead=[-1, 4], blocks=[1, 1], level_config=["CT", "CTA"],
        inject_effnet=[False, True], effnet_embd=4, clip_embd=parts.WIDTH,
    )  # fmt: skip
    # Its initialisation shrinks these weights once per module of the network, to nearly zero.
    for block in network.modules():
        if isinstance(block, ResBlockStageB):
            nn.init.xavier_uniform_(block.channelwise[-1].weight)
    return {"decoder": network, "vqgan": vqgan(), **common()}


def stages() -> dict[str, Any]:
    first = {f"prior_{name}": part for name, part in prior().items()}
    return {**decoder(), **first}


def WuerstchenPriorPipeline() -> Case:
    return Case(pipe=diffusers.WuerstchenPriorPipeline(**prior()), call={**CALL, **SIZE, "guidance_scale": 4.0})


def WuerstchenDecoderPipeline() -> Case:
    return Case(
        pipe=diffusers.WuerstchenDecoderPipeline(**decoder()),
        call={**CALL, "image_embeddings": image_embeddings(), "guidance_scale": 2.0, "output_type": "latent"},
    )


def WuerstchenCombinedPipeline() -> Case:
    return Case(
        pipe=diffusers.WuerstchenCombinedPipeline(**stages()),
        call={**CALL, **SIZE, **SCALES, "prior_num_inference_steps": STEPS, "output_type": "latent"},
    )
