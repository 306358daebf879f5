"""T2I-Adapter for Stable Diffusion 1, 2 and XL."""

import diffusers
from diffusers import EulerAncestralDiscreteScheduler, T2IAdapter, UNet2DConditionModel

from support import parts
from support.case import Case
from support.families import stable_diffusion as sd
from support.families import stable_diffusion_xl as xl


def xl_unet() -> UNet2DConditionModel:
    """Return a network of three blocks, which the adapter's four pictures fit: one a block and one in the middle."""
    return UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(16, 32, 32),
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4, 4),
        use_linear_projection=True, cross_attention_dim=2 * parts.WIDTH, addition_embed_type="text_time",
        addition_time_embed_dim=xl.SIZE_IDS, projection_class_embeddings_input_dim=6 * xl.SIZE_IDS + parts.WIDTH,
    )  # fmt: skip


def StableDiffusionAdapterPipeline() -> Case:
    adapter = T2IAdapter(channels=[16, 32], num_res_blocks=1, downscale_factor=2)
    return Case(
        pipe=diffusers.StableDiffusionAdapterPipeline(**sd.unchecked(**sd.CROSS_ATTENTION_FIRST), adapter=adapter),
        call={**sd.CALL, **sd.SIZE, "image": parts.photo()},
    )


def StableDiffusionXLAdapterPipeline() -> Case:
    pieces = {
        **xl.components(), "unet": xl_unet(), "scheduler": EulerAncestralDiscreteScheduler(**sd.BETAS),
        "adapter": T2IAdapter(
            channels=[16, 32, 32, 32], num_res_blocks=1, downscale_factor=4, adapter_type="full_adapter_xl"
        ),
    }  # fmt: skip
    return Case(
        pipe=diffusers.StableDiffusionXLAdapterPipeline(**pieces),
        call={**xl.CALL, **sd.SIZE, "image": parts.photo()},
    )
