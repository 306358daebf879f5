"""The denoisers of published models by their published settings, each with the call of one sampling step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from denoisers import sdxl as sdxl_of

Call = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A published denoiser: how it is made, what it is called with, and how many parameters it is known to have."""

    make: Callable[[], nn.Module]
    call: Callable[[int], Call]
    parameters: int
    latents: str


def sd21() -> nn.Module:
    return UNet2DConditionModel(
        sample_size=96, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    )


def sd21_call(batch: int) -> Call:
    return {"sample": torch.randn(batch, 4, 96, 96), "timestep": torch.tensor(801), **text(batch, 77, 1024)}


def text(batch: int, tokens: int, width: int) -> Call:
    return {"encoder_hidden_states": torch.randn(batch, tokens, width)}


def sdxl() -> nn.Module:
    return sdxl_of(1)[0]


def sdxl_call(batch: int) -> Call:
    pooled = {"text_embeds": torch.randn(batch, 1280), "time_ids": torch.full((batch, 6), 1024.0)}
    call = {"sample": torch.randn(batch, 4, 128, 128), "timestep": torch.tensor(801), **text(batch, 77, 2048)}
    return call | {"added_cond_kwargs": pooled}


def sd35_medium() -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, num_layers=24, attention_head_dim=64, num_attention_heads=24,
        joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048, out_channels=16,
        pos_embed_max_size=384, dual_attention_layers=tuple(range(13)), qk_norm="rms_norm",
    )  # fmt: skip


def sd35_call(batch: int) -> Call:
    latents = {"hidden_states": torch.randn(batch, 16, 128, 128), "timestep": torch.tensor([801.0] * batch)}
    return latents | text(batch, 333, 4096) | {"pooled_projections": torch.randn(batch, 2048)}


def flux() -> nn.Module:
    return FluxTransformer2DModel(guidance_embeds=True)


def flux_call(batch: int) -> Call:
    latents = {"hidden_states": torch.randn(batch, 4096, 64), "timestep": torch.tensor([0.8] * batch)}
    pooled = {"guidance": torch.full((batch,), 3.5), "pooled_projections": torch.randn(batch, 768)}
    return latents | pooled | text(batch, 512, 4096) | {"txt_ids": torch.zeros(512, 3), "img_ids": torch.zeros(4096, 3)}


def qwen() -> nn.Module:
    return QwenImageTransformer2DModel()


def qwen_call(batch: int) -> Call:
    latents = {"hidden_states": torch.randn(batch, 4096, 64), "timestep": torch.tensor([0.8] * batch)}
    shapes = {"img_shapes": [[(1, 64, 64)]] * batch}
    return latents | text(batch, 128, 3584) | shapes


def wan() -> nn.Module:
    return WanTransformer3DModel(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30)


def wan_call(batch: int) -> Call:
    latents = {"hidden_states": torch.randn(batch, 16, 9, 60, 104), "timestep": torch.tensor([801] * batch)}
    return latents | text(batch, 512, 4096)


MODELS = {
    "SD 2.1": Model(sd21, sd21_call, 865_910_724, "96 x 96"),
    "SDXL": Model(sdxl, sdxl_call, 2_567_463_684, "128 x 128"),
    "SD3.5-medium": Model(sd35_medium, sd35_call, 2_243_171_520, "128 x 128"),
    "FLUX.1-dev": Model(flux, flux_call, 11_901_408_320, "128 x 128"),
    "Qwen-Image": Model(qwen, qwen_call, 20_430_401_088, "128 x 128"),
    "Wan 2.1 1.3B": Model(wan, wan_call, 1_418_996_800, "33 frames, 60 x 104"),
}


def in_dtype(call: Call, dtype: torch.dtype) -> Call:
    """Return a call with its numbers in another precision; whole numbers stay as they are, and so do timesteps."""

    def change(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return in_dtype(value, dtype)
        floats = isinstance(value, Tensor) and value.is_floating_point() and name != "timestep"
        return value.to(dtype) if floats else value

    return {name: change(name, value) for name, value in call.items()}
