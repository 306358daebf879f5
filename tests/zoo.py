"""Tiny denoisers and pipelines with random weights, one of each family, for the laws."""

import string

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DiTTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    WanTransformer3DModel,
)
from diffusers.models.autoencoders import AutoencoderTiny
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROWS = 2


def unet(**more) -> UNet2DConditionModel:
    settings = dict(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=8,
        cross_attention_dim=24,
        use_linear_projection=True,
    )
    return UNet2DConditionModel(**{**settings, **more})


def sd() -> tuple[nn.Module, dict]:
    return unet(), dict(
        sample=torch.randn(ROWS, 4, 8, 8), timestep=torch.tensor(900), encoder_hidden_states=torch.randn(ROWS, 7, 24)
    )


def sdxl() -> tuple[nn.Module, dict]:
    model = unet(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=64)
    _, call = sd()
    sizes = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024], [512, 768, 0, 64, 512, 512]])
    return model, call | dict(added_cond_kwargs=dict(text_embeds=torch.randn(ROWS, 16), time_ids=sizes))


def dit() -> tuple[nn.Module, dict]:
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        norm_num_groups=8,
    )
    call = dict(
        hidden_states=torch.randn(ROWS, 4, 8, 8),
        timestep=torch.tensor([900, 400]),
        class_labels=torch.tensor([3, 1000]),
    )
    return model, call


def pixart() -> tuple[nn.Module, dict]:
    model = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, sample_size=8, cross_attention_dim=16,
        caption_channels=12, use_additional_conditions=False, norm_num_groups=8,
    )  # fmt: skip
    call = dict(
        hidden_states=torch.randn(ROWS, 4, 8, 8),
        timestep=torch.tensor([900, 900]),
        encoder_hidden_states=torch.randn(ROWS, 5, 12),
        encoder_attention_mask=torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]),
        added_cond_kwargs=dict(resolution=None, aspect_ratio=None),
    )
    return model, call


def sd3() -> tuple[nn.Module, dict]:
    model = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=10, out_channels=4,
    )  # fmt: skip
    call = dict(
        hidden_states=torch.randn(ROWS, 4, 8, 8),
        timestep=torch.tensor([900.0, 900.0]),
        encoder_hidden_states=torch.randn(ROWS, 5, 12),
        pooled_projections=torch.randn(ROWS, 10),
    )
    return model, call


def wan() -> tuple[nn.Module, dict]:
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )  # fmt: skip
    call = dict(
        hidden_states=torch.randn(ROWS, 4, 2, 8, 8),
        timestep=torch.tensor([900, 900]),
        encoder_hidden_states=torch.randn(ROWS, 5, 16),
    )
    return model, call


ZOO = {"sd": sd, "sdxl": sdxl, "dit": dit, "pixart": pixart, "sd3": sd3, "wan": wan}


def make(name: str) -> tuple[nn.Module, dict]:
    """Return a frozen denoiser and a call for it, the same every time."""
    torch.manual_seed(0)
    model, call = ZOO[name]()
    for parameter in model.parameters():
        # many transformers start with zero gates, behind which nothing could be seen
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False), call


def tiny_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer for a few words, the same every time: training one settles ties by chance."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    merges: dict[tuple[str, str], None] = {}
    for word in ["a", "red", "fox", "blue", "cat", "green", "tree", "yellow", "car"]:
        left, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for right in rest:
            merges[left, right] = None
            left += right
    letters = [f"{letter}{ending}" for letter in string.ascii_lowercase for ending in ("", "</w>")]
    vocab = {token: number for number, token in enumerate([start, end, *letters, *map("".join, merges)])}
    special = dict(unk_token=end, bos_token=start, eos_token=end, pad_token=end)
    return CLIPTokenizer(vocab=vocab, merges=list(merges), model_max_length=7, **special)


def pipeline(**denoiser) -> StableDiffusionPipeline:
    """Return a complete Stable Diffusion pipeline of a few thousand parameters."""
    torch.manual_seed(0)
    words = tiny_tokenizer()
    text = CLIPTextConfig(
        hidden_size=24, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=len(words),
        max_position_embeddings=7, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    widths = (8, 8)
    vae = AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=words, unet=unet(**denoiser),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def shake(module: nn.Module, seed: int = 1) -> None:
    """Give an adapter random weights, so that it does something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def message_of(error, act) -> str:
    """Return the one line that an error tells."""
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)
