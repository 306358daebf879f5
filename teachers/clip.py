"""A small CLIP: its text tower conditions the denoiser, its image tower judges the pictures."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from loop import fit

TOKENS = 24
WIDTH = 192


def tokenizer(captions: list[str]) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary from the training captions."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    base = CLIPTokenizer(
        vocab={start: 0, end: 1}, merges=[], unk_token=end, bos_token=start, eos_token=end, pad_token=end
    )
    words = base.train_new_from_iterator(captions, vocab_size=1500)
    words.model_max_length = TOKENS
    return words


def model(words: CLIPTokenizer) -> CLIPModel:
    tower = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=4, num_attention_heads=6)
    text = dict(
        tower,
        vocab_size=len(words),
        max_position_embeddings=TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    vision = dict(tower, image_size=64, patch_size=8)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def normalise(pixels: Tensor) -> Tensor:
    """Map uint8 pictures [N, 3, 64, 64] to the image tower's range, -1 to 1."""
    return pixels.float() / 127.5 - 1


def shift(pixels: Tensor, generator: torch.Generator, most: int = 4) -> Tensor:
    """Move the whole batch by a few pixels over a white border."""
    dx, dy = torch.randint(0, 2 * most + 1, (2,), generator=generator, device=generator.device).tolist()
    return nn.functional.pad(pixels, (most,) * 4, value=255)[..., dy : dy + 64, dx : dx + 64]


def train(pixels: Tensor, tokens: Tensor, clip: CLIPModel, run: Path, *, steps: int, batch: int) -> CLIPModel:
    """Train both towers with the symmetric contrastive loss (Radford et al. 2021, arXiv 2103.00020)."""
    device = clip.device

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        images = normalise(shift(pixels[indices].to(device), generator))
        with torch.autocast(device.type, torch.bfloat16):
            output = clip(input_ids=tokens[indices].to(device), pixel_values=images)
        target = torch.arange(len(indices), device=device)
        logits = output.logits_per_text.float()
        return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2

    return fit(
        "clip",
        clip,
        loss_of,
        size=len(pixels),
        steps=steps,
        batch=batch,
        peak=1e-3,
        run=run,
        decay=0.995,
        weight_decay=0.1,
    )
