"""I2VGen-XL."""

import diffusers
from diffusers import DDIMScheduler, I2VGenXLUNet

from support import parts
from support.case import Case
from support.families import stable_diffusion as sd


def I2VGenXLPipeline() -> Case:
    unet = I2VGenXLUNet(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=parts.WIDTH, attention_head_dim=4,
    )  # fmt: skip
    pieces = {
        **sd.bare(), "unet": unet, "image_encoder": parts.clip_vision(projection=True),
        "feature_extractor": parts.clip_pictures(),
        "scheduler": DDIMScheduler(
            beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
            set_alpha_to_one=True, steps_offset=1, timestep_spacing="leading", clip_sample=False,
        ),
    }  # fmt: skip
    return Case(
        pipe=diffusers.I2VGenXLPipeline(**pieces),
        call={
            **sd.CALL, **sd.SIZE, "negative_prompt": "blurry", "image": parts.photo(), "num_frames": 3,
            "clip_skip": None,
        },
    )  # fmt: skip
