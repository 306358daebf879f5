"""Lucy Edit."""

import diffusers

from support import parts
from support.case import Case
from support.families import wan


def LucyEditPipeline() -> Case:
    pipe = diffusers.LucyEditPipeline(**wan.components(in_channels=32, out_channels=16))
    return Case(pipe=pipe, call={**wan.encoded(pipe), "num_frames": 5, "video": parts.film(5)})
