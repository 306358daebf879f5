"""PIA."""

import diffusers

from support import parts
from support.case import Case
from support.families import animatediff


def PIAPipeline() -> Case:
    pieces = {**animatediff.components(), "motion_adapter": animatediff.adapter(conv_in_channels=9)}
    return Case(pipe=diffusers.PIAPipeline(**pieces), call={**animatediff.CALL, "image": parts.photo()})
