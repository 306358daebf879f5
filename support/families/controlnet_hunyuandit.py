"""HunyuanDiT with ControlNet."""

import diffusers
from diffusers import HunyuanDiT2DControlNetModel

from support import parts
from support.case import Case
from support.families import hunyuandit


def HunyuanDiTControlNetPipeline() -> Case:
    controlnet = HunyuanDiT2DControlNetModel(transformer_num_layers=hunyuandit.LAYERS, **hunyuandit.SHAPE)
    return Case(
        pipe=diffusers.HunyuanDiTControlNetPipeline(**hunyuandit.components(), controlnet=controlnet),
        call={**hunyuandit.CALL, "control_image": parts.picture(64)},
    )
