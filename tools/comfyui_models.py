"""Tiny models with random weights, each as diffusers and as ComfyUI have it, for `comfyui_check.py`."""

# pyright: reportPrivateImportUsage=false, reportMissingImports=false
# pyright: reportMissingImports=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.ldm.flux.model import FluxParams
from diffusers import (
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)
from torch import Tensor, nn

from guidefold.acting.names import Source

CPU, FLOAT = torch.device("cpu"), torch.float32
PLAIN = {"in_channels": 4, "out_channels": 4, "dtype": FLOAT}


@dataclass
class Pair:
    """A denoiser of diffusers, how it is called, ComfyUI's model of it, and its latents' and conditionings' shapes."""

    denoiser: nn.Module
    call: Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[dict[str, Any], Callable[[Tensor], Tensor]]]
    kind: Any
    config: dict[str, Any]
    latents: tuple[int, ...]
    tokens: int
    pooled: int = 0

    def native(self) -> Any:
        """Return ComfyUI's model, with no weights yet."""
        config = self.kind(self.config)
        # written for models of one size, which ComfyUI would recognise by theirs
        config.unet_config |= {name: value for name, value in self.config.items() if name.startswith("num_head")}
        return config.get_model({}, device=CPU)


def patcher_of(model: Any) -> Any:
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def low_vram(model: Any) -> Any:
    """Return a patcher that finds no room for any layer: all are brought and patched when they are called."""

    class Cramped(comfy.model_patcher.ModelPatcher):
        def load(self, device_to: Any = None, *args: Any, **more: Any) -> Any:
            return super().load(device_to, lowvram_model_memory=64, force_patch_weights=False, full_load=False)

    return Cramped(model, load_device=CPU, offload_device=CPU)


def fill(native: nn.Module, denoiser: nn.Module, names: dict[str, Source]) -> None:
    """Give ComfyUI's model the denoiser's weights, by the names of its parameters."""
    theirs = native.state_dict()
    for name, value in denoiser.state_dict().items():
        if name not in names:
            continue  # a buffer that is worked out
        source = names[name]
        target = theirs[source.name]
        if source.order is None:
            target.data.copy_(value.view(target.shape))
        else:
            rows = source.order >= 0
            target.data[rows] = value.detach()[source.order[rows]]


def unet(**more: Any) -> UNet2DConditionModel:
    blocks = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    settings = {
        "sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1, "down_block_types": blocks[0],
        "up_block_types": blocks[1], "cross_attention_dim": 24, "attention_head_dim": 8,
    }  # fmt: skip
    return UNet2DConditionModel(**(settings | more))


def unet_config(**more: Any) -> dict[str, Any]:
    return PLAIN | {
        "use_checkpoint": False, "image_size": 32, "use_spatial_transformer": True, "legacy": False,
        "model_channels": 32, "use_temporal_attention": False, "use_temporal_resblock": False, "context_dim": 24,
        "adm_in_channels": None, "num_res_blocks": [1, 1], "transformer_depth": [1, 0], "channel_mult": [1, 2],
        "transformer_depth_middle": 1, "use_linear_in_transformer": False,
        "transformer_depth_output": [1, 1, 0, 0], "num_heads": 8, "num_head_channels": -1,
    } | more  # fmt: skip


def call_unet(x: Tensor, time: Tensor, context: Tensor, pooled: Tensor | None) -> tuple[dict[str, Any], Any]:
    call: dict[str, Any] = {"sample": x, "timestep": time, "encoder_hidden_states": context}
    if pooled is not None:
        size = torch.tensor([[x.shape[2] * 8.0, x.shape[3] * 8, 0, 0, x.shape[2] * 8, x.shape[3] * 8]])
        call["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": size.expand(len(x), 6)}
    return call, lambda out: out


def sd15() -> Pair:
    return Pair(unet(), call_unet, comfy.supported_models.SD15, unet_config(), (4, 16, 16), 24)


def sd21() -> Pair:
    heads = {"use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 16}
    denoiser = unet(use_linear_projection=True, attention_head_dim=(2, 4))
    return Pair(denoiser, call_unet, comfy.supported_models.SD20, unet_config(**heads), (4, 16, 16), 24)


def sdxl() -> Pair:
    added = {"num_classes": "sequential", "adm_in_channels": 20 + 6 * 256}
    heads = {"use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 16}
    depth = {"transformer_depth": [1, 2], "transformer_depth_output": [1, 1, 2, 2], "transformer_depth_middle": 2}
    denoiser = unet(
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
        use_linear_projection=True, attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2),
        addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=20 + 6 * 256,
    )  # fmt: skip
    config = unet_config(**added, **heads, **depth)
    return Pair(denoiser, call_unet, comfy.supported_models.SDXL, config, (4, 16, 16), 24, 20)


def sd3() -> Pair:
    denoiser = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=64, num_attention_heads=2,
        joint_attention_dim=24, caption_projection_dim=128, pooled_projection_dim=20, out_channels=16,
        pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": 24, "out_features": 128}}
    config = {
        "in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "adm_in_channels": 20, "dtype": FLOAT,
        "context_embedder_config": embedder, "num_patches": 256, "pos_embed_max_size": 16, "qk_norm": "rms",
        "pos_embed_scaling_factor": None, "x_block_self_attn_layers": [0], "context_size": 24,
    }  # fmt: skip

    def call(x: Tensor, time: Tensor, context: Tensor, pooled: Tensor | None) -> tuple[dict[str, Any], Any]:
        given = {"hidden_states": x, "timestep": time, "encoder_hidden_states": context, "pooled_projections": pooled}
        return given, lambda out: out

    return Pair(denoiser, call, comfy.supported_models.SD3, config, (16, 16, 16), 24, 20)


def packed(x: Tensor) -> Tensor:
    rows, channels, height, width = x.shape
    x = x.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(rows, height * width // 4, channels * 4)


def unpacked(out: Tensor, height: int, width: int) -> Tensor:
    rows, _, channels = out.shape
    out = out.view(rows, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return out.reshape(rows, channels // 4, height, width)


def flux() -> Pair:
    denoiser = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, pooled_projection_dim=20, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    config = {
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 20, "context_in_dim": 24,
        "hidden_size": 32, "mlp_ratio": 4.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "theta": 10000,
        "axes_dim": [4, 6, 6], "patch_size": 2, "qkv_bias": True, "guidance_embed": False, "dtype": FLOAT,
    }  # fmt: skip
    if "txt_ids_dims" in FluxParams.__dataclass_fields__:  # of newer versions
        config["txt_ids_dims"] = []

    def call(x: Tensor, time: Tensor, context: Tensor, pooled: Tensor | None) -> tuple[dict[str, Any], Any]:
        height, width = x.shape[2:]
        places = torch.zeros(height // 2, width // 2, 3)
        places[..., 1] += torch.arange(height // 2)[:, None]
        places[..., 2] += torch.arange(width // 2)[None]
        given = {"hidden_states": packed(x), "timestep": time, "encoder_hidden_states": context}
        ids = {"img_ids": places.view(-1, 3), "txt_ids": torch.zeros(context.shape[1], 3)}
        return given | ids | {"pooled_projections": pooled}, lambda out: unpacked(out, height, width)

    return Pair(denoiser, call, comfy.supported_models.Flux, config, (16, 16, 16), 24, 20)


def qwen() -> Pair:
    sizes = {
        "patch_size": 2, "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 16,
        "num_attention_heads": 2, "joint_attention_dim": 24, "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip

    def call(x: Tensor, time: Tensor, context: Tensor, pooled: Tensor | None) -> tuple[dict[str, Any], Any]:
        height, width = x.shape[-2:]
        given: dict[str, Any] = {"hidden_states": packed(x[:, :, 0]), "timestep": time}
        given["encoder_hidden_states"] = context
        given["encoder_hidden_states_mask"] = torch.ones(context.shape[:2], dtype=torch.long)
        given["img_shapes"] = [[(1, height // 2, width // 2)]] * len(x)
        return given, lambda out: unpacked(out, height, width)[:, :, None]

    config = sizes | {"image_model": "qwen_image", "dtype": FLOAT}
    denoiser = QwenImageTransformer2DModel(**sizes)
    return Pair(denoiser, call, comfy.supported_models.QwenImage, config, (16, 1, 16, 16), 24)


def wan() -> Pair:
    denoiser = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=24, freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )  # fmt: skip
    config = {
        "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "in_dim": 16, "dim": 24, "ffn_dim": 32,
        "freq_dim": 32, "text_dim": 24, "out_dim": 16, "num_heads": 2, "num_layers": 2, "dtype": FLOAT,
    }  # fmt: skip

    def call(x: Tensor, time: Tensor, context: Tensor, pooled: Tensor | None) -> tuple[dict[str, Any], Any]:
        return {"hidden_states": x, "timestep": time, "encoder_hidden_states": context}, lambda out: out

    return Pair(denoiser, call, comfy.supported_models.WAN21_T2V, config, (16, 2, 16, 16), 24)


def z_image() -> Pair:
    sizes = {
        "in_channels": 16, "dim": 1024, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 8, "n_kv_heads": 8,
        "norm_eps": 1e-5, "qk_norm": True, "cap_feat_dim": 24, "axes_dims": [32, 48, 48], "axes_lens": [64, 64, 64],
    }  # fmt: skip
    denoiser = ZImageTransformer2DModel(all_patch_size=(2,), all_f_patch_size=(1,), **sizes)
    config = sizes | {
        "image_model": "lumina2", "patch_size": 2, "pad_tokens_multiple": 32, "dtype": FLOAT, "multiple_of": 1,
        "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True, "time_scale": 1000.0, "rope_theta": 256.0,
    }  # fmt: skip

    def call(x: Tensor, time: Tensor, context: Tensor, pooled: Tensor | None) -> tuple[dict[str, Any], Any]:
        given = {"x": [one[:, None] for one in x], "t": 1 - time, "cap_feats": list(context)}
        return given, lambda out: -torch.stack(list(out))[:, :, 0]

    return Pair(denoiser, call, comfy.supported_models.Lumina2, config, (16, 16, 16), 24)


FAMILIES = {
    "SD 1.5": sd15,
    "SD 2.1": sd21,
    "SDXL": sdxl,
    "SD3": sd3,
    "Flux": flux,
    "Qwen-Image": qwen,
    "Wan": wan,
    "Z-Image": z_image,
}
