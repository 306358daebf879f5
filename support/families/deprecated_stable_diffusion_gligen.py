"""GLIGEN."""

import diffusers
from diffusers import UNet2DConditionModel
from diffusers.models.attention import GatedSelfAttentionDense
from diffusers.pipelines.stable_diffusion import CLIPImageProjection

from support import parts
from support.case import Case
from support.families import stable_diffusion as sd

CALL = {
    **sd.CALL, **sd.SIZE, "gligen_phrases": ["fox", "tree"], "gligen_scheduled_sampling_beta": 0.7,
    "gligen_boxes": [[0.1, 0.2, 0.5, 0.8], [0.5, 0.1, 0.9, 0.9]],
}  # fmt: skip


def unet(attention_type: str) -> UNet2DConditionModel:
    """Return a network whose gates are ajar: new ones are shut."""
    made = sd.unet(attention_type=attention_type)
    for module in made.modules():
        if isinstance(module, GatedSelfAttentionDense):
            module.alpha_attn.data.fill_(0.5)
            module.alpha_dense.data.fill_(0.5)
    return made


def StableDiffusionGLIGENPipeline() -> Case:
    pieces = {**sd.unchecked(), "unet": unet("gated")}
    return Case(pipe=diffusers.StableDiffusionGLIGENPipeline(**pieces), call=CALL)


def StableDiffusionGLIGENTextImagePipeline() -> Case:
    pieces = {
        **sd.unchecked(), "unet": unet("gated-text-image"), "processor": parts.clip_pictures(),
        "image_encoder": parts.clip_vision(projection=True),
        "image_project": CLIPImageProjection(hidden_size=parts.WIDTH),
    }  # fmt: skip
    return Case(
        pipe=diffusers.StableDiffusionGLIGENTextImagePipeline(**pieces),
        call={**CALL, "gligen_images": [parts.photo(), parts.photo(seed=1)]},
    )
