"""ControlNet-XS."""

from typing import Any

import diffusers
from diffusers import ControlNetXSAdapter, UNet2DConditionModel

from support import parts
from support.case import Case
from support.families import controlnet
from support.families import stable_diffusion as sd
from support.families import stable_diffusion_xl as xl


def controlled(components: dict[str, Any]) -> dict[str, Any]:
    """Add an adapter; it supposes that a block of the network has two layers."""
    adapter = ControlNetXSAdapter.from_unet(
        components["unet"], size_ratio=0.5, conditioning_embedding_out_channels=controlnet.CONDITION_CHANNELS,
        learn_time_embedding=True, time_embedding_mix=0.95,
    )  # fmt: skip
    return {**components, "controlnet": adapter}


def StableDiffusionControlNetXSPipeline() -> Case:
    return Case(
        pipe=diffusers.StableDiffusionControlNetXSPipeline(**controlled(sd.unchecked(layers_per_block=2))),
        call={**sd.CALL, "image": parts.picture()},
    )


def StableDiffusionXLControlNetXSPipeline() -> Case:
    unet = UNet2DConditionModel.from_config({**xl.unet().config, "layers_per_block": 2})
    return Case(
        pipe=diffusers.StableDiffusionXLControlNetXSPipeline(**controlled({**xl.components(), "unet": unet})),
        call={**xl.CALL, "image": parts.picture()},
    )
