"""Teacher C: text to image by flow matching with joint attention, and two small text encoders trained along."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from clip import TOKENS
from conditions import Texts
from dit import blank
from loop import Plan, fit
from unet import strata

WIDTHS, LAYERS = (128, 64), (2, 1)
HEADS = 4
# StableDiffusion3Pipeline adds that many tokens of zeros where there is no third encoder
MOST_EMPTY_TOKENS = 256


def encoder(words: CLIPTokenizer, width: int, layers: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


class Teacher(nn.Module):
    """The transformer and its two text encoders, called as the pipeline calls them."""

    def __init__(self, words: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = (
            encoder(words, width, layers) for width, layers in zip(WIDTHS, LAYERS, strict=True)
        )
        self.transformer = SD3Transformer2DModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            num_layers=6,
            num_attention_heads=HEADS,
            attention_head_dim=32,
            joint_attention_dim=sum(WIDTHS),
            caption_projection_dim=32 * HEADS,
            pooled_projection_dim=sum(WIDTHS),
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        )
        blocks = self.transformer.transformer_blocks
        norms = [norm for block in blocks for norm in (block.norm1, block.norm1_context)]
        blank([norm.linear for norm in [*norms, self.transformer.norm_out]] + [self.transformer.proj_out])

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor, empty: int) -> Tensor:
        """Return velocities [B, 4, 16, 16] for token ids [B, T] followed by `empty` tokens of zeros."""
        outputs = [e(ids, output_hidden_states=True) for e in (self.text_encoder, self.text_encoder_2)]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        states = nn.functional.pad(states, (0, 0, 0, empty))
        return self.transformer(noisy, states, pooled, timesteps).sample


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler()


def train(latents: Tensor, texts: Texts, teacher: Teacher, run: Path, plan: Plan) -> nn.Module:
    """Train on scaled latents [N, 4, 16, 16] of the pictures that `texts` describes.

    Most noise levels are in the middle (Esser et al. 2024, arXiv 2403.03206), and the number of empty tokens varies,
    so that the pictures do not depend on it; mostly there are few, which is faster.
    """
    device = next(teacher.parameters()).device

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen, told = texts.batch(indices, generator)
        clean, told = latents[chosen].to(device), told.to(device)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        level = torch.sigmoid(torch.special.ndtri(strata(len(chosen), generator).clamp(1e-4, 1 - 1e-4)))
        noisy = clean.lerp(noise, level[:, None, None, None])
        empty = int(MOST_EMPTY_TOKENS ** torch.rand((), generator=generator, device=device).item() ** 3)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            prediction = teacher(noisy, level * 1000, told, empty)
        return nn.functional.mse_loss(prediction.float(), noise - clean)

    return fit("c", teacher, loss_of, size=len(texts.groups), plan=plan, run=run)
