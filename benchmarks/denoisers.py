"""Bundled denoisers, and others of published sizes with random weights, each with the conditional call of one step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import DiTTransformer2DModel, FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from guidefold.demo import bundle
from guidefold.denoiser import find_denoiser

Call = dict[str, Any]
Builder = Callable[[int], tuple[nn.Module, Call]]


def unet_call(batch: int, size: int, tokens: int, width: int) -> Call:
    """Return a call for several images of one prompt."""
    return {
        "sample": torch.randn(batch, 4, size, size),
        "timestep": torch.tensor(801),
        "encoder_hidden_states": torch.randn(1, tokens, width).repeat(batch, 1, 1),
    }


def sd21(batch: int) -> tuple[nn.Module, Call]:
    """Stable Diffusion 2.1, at 512 x 512 pixels."""
    model = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    )
    return model, unet_call(batch, 64, 77, 1024)


def sdxl(batch: int) -> tuple[nn.Module, Call]:
    """Stable Diffusion XL, at 1024 x 1024 pixels."""
    model = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    pooled = {"text_embeds": torch.randn(batch, 1280), "time_ids": torch.full((batch, 6), 1024.0)}
    return model, unet_call(batch, 128, 77, 2048) | {"added_cond_kwargs": pooled}


def dit_call(batch: int, size: int) -> Call:
    """Return a call for several images of one class."""
    return {
        "hidden_states": torch.randn(batch, 4, size, size),
        "timestep": torch.full((batch,), 801),
        "class_labels": torch.full((batch,), 7),
    }


def dit(batch: int) -> tuple[nn.Module, Call]:
    """DiT-XL/2, at 256 x 256 pixels."""
    model = DiTTransformer2DModel(
        num_layers=28, num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, sample_size=32
    )
    return model, dit_call(batch, 32)


def joint_call(batch: int) -> Call:
    """Return a call for several images of one prompt, to the bundled teacher with joint attention."""
    return {
        "hidden_states": torch.randn(batch, 4, 16, 16),
        "timestep": torch.full((batch,), 801.0),
        "encoder_hidden_states": torch.randn(1, 25, 192).repeat(batch, 1, 1),
        "pooled_projections": torch.randn(1, 192).repeat(batch, 1),
    }


CALLS: dict[str, Callable[[int], Call]] = {
    bundle.UNET: lambda batch: unet_call(batch, 16, 24, 192),
    bundle.DIT: lambda batch: dit_call(batch, 16),
    bundle.SD3: joint_call,
}


def bundled(name: str, batch: int) -> tuple[nn.Module, Call]:
    """Return a bundled teacher's denoiser."""
    return find_denoiser(bundle.load_teacher(name=name)), CALLS[name](batch)


def sdxl_layers() -> tuple[nn.Module, Call]:
    """All layers of Stable Diffusion XL, in widths that cost nothing."""
    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(2, 2, 2),
        cross_attention_dim=32,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )
    pooled = {"text_embeds": torch.randn(1, 16), "time_ids": torch.full((1, 6), 1024.0)}
    return model, unet_call(1, 16, 7, 32) | {"added_cond_kwargs": pooled}


def flux_layers() -> tuple[nn.Module, Call]:
    """All 57 blocks of a Flux, in widths that cost nothing."""
    model = FluxTransformer2DModel(
        in_channels=4, num_layers=19, num_single_layers=38, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    call = {
        "hidden_states": torch.randn(1, 16, 4),
        "timestep": torch.tensor([0.8]),
        "encoder_hidden_states": torch.randn(1, 7, 32),
        "pooled_projections": torch.randn(1, 32),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(7, 3),
    }
    return model, call


LAYERS: dict[str, Callable[[], tuple[nn.Module, Call]]] = {"SDXL": sdxl_layers, "Flux": flux_layers}
BUILDERS: dict[str, Builder] = {name: partial(bundled, name) for name in CALLS} | {
    "sd21": sd21, "sdxl": sdxl, "dit": dit
}  # fmt: skip


def mapped(call: Call, change: Callable[[Tensor], Tensor]) -> Call:
    """Return a call with each of its tensors changed."""
    return {name: mapped(it, change) if isinstance(it, dict) else change(it) for name, it in call.items()}


def doubled(call: Call) -> Call:
    """Return the call of classifier-free guidance: each image twice. What the second condition is costs nothing."""
    return mapped(call, lambda value: torch.cat([value, value]) if value.dim() else value)
