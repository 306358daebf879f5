"""Teacher B: a class-conditional transformer with adaptive norms; a class is a name, its styles are the variety."""

from pathlib import Path

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from clip import members
from conditions import DROPPED
from emoji import Emoji, most_drawn
from loop import Plan, fit
from unet import scheduler, strata

# DiTPipeline takes class 1000 for "no class", whatever the model and however few classes it has
NONE = 1000
CLASSES = 300


def model() -> DiTTransformer2DModel:
    """Return the denoiser: 64 tokens of 2 x 2 latents, six blocks of width 160."""
    dit = DiTTransformer2DModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        num_attention_heads=5,
        attention_head_dim=32,
        num_embeds_ada_norm=NONE,
    )
    start(dit)
    return dit


@torch.no_grad()
def start(dit: DiTTransformer2DModel) -> None:
    """Begin as Peebles & Xie do (2023, arXiv 2212.09748): each block the identity, the prediction zero."""
    for block in dit.transformer_blocks:
        nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
    blank([block.norm1.linear for block in dit.transformer_blocks] + [dit.proj_out_1, dit.proj_out_2])


@torch.no_grad()
def blank(layers: list[nn.Linear]) -> None:
    """Let layers put out zeros."""
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def classes(emojis: list[Emoji]) -> list[str]:
    """Return the names that become classes."""
    return most_drawn(emojis, CLASSES)


def train(latents: Tensor, emojis: list[Emoji], groups: list[list[int]], dit: nn.Module, run: Path, plan: Plan):
    """Train on scaled latents [N, 4, 16, 16] of the pictures whose names are classes."""
    numbers = {name: number for number, name in enumerate(classes(emojis))}
    chosen = [group for group in groups if emojis[group[0]].name in numbers]
    labels = torch.tensor([numbers.get(e.name, NONE) for e in emojis])
    device, noises = next(dit.parameters()).device, scheduler()
    # the model's own dropping of labels draws anew in each block
    dit.eval()

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        pictures = members(chosen, indices, generator)
        clean, classes = latents[pictures].to(device), labels[pictures].to(device)
        dropped = torch.rand(len(classes), generator=generator, device=device) < DROPPED
        classes = torch.where(dropped, NONE, classes)
        timesteps = (strata(len(classes), generator) * noises.config["num_train_timesteps"]).long()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noisy, target = noises.add_noise(clean, noise, timesteps), noises.get_velocity(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            prediction = dit(noisy, timestep=timesteps, class_labels=classes).sample
        return nn.functional.mse_loss(prediction.float(), target)

    return fit("b", dit, loss_of, size=len(chosen), plan=plan, run=run)
