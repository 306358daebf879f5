"""The autoencoder between pictures and the latents that the denoisers work on."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from clip import normalise
from loop import Plan, fit

WIDTH = 32
LATENT_NOISE = 0.1


def model() -> AutoencoderTiny:
    """A TAESD-shaped autoencoder that halves the side twice: 64 pixels to 16 x 16 latents of 4 channels."""
    widths = (WIDTH,) * 3
    return AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 2, 1),
    )


def edges(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return horizontal and vertical differences of neighbouring pixels."""
    return picture.diff(dim=-1), picture.diff(dim=-2)


def train(pixels: Tensor, autoencoder: AutoencoderTiny, run: Path, plan: Plan) -> AutoencoderTiny:
    """Train on pixels and edges; noise on the latents keeps their space smooth enough to be generated."""
    device = autoencoder.device

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        images = normalise(pixels[indices].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            latents = autoencoder.encode(images).latents
            noise = torch.randn(latents.shape, generator=generator, device=device)
            output = autoencoder.decode(latents + LATENT_NOISE * noise).sample.float()
        loss = nn.functional.l1_loss(output, images)
        loss = loss + sum(nn.functional.l1_loss(a, b) for a, b in zip(edges(output), edges(images), strict=True))
        return loss + 0.01 * (latents.float().square().mean() - 1).abs()

    return fit("autoencoder", autoencoder, loss_of, size=len(pixels), plan=plan, run=run)


@torch.no_grad()
def encode(pixels: Tensor, autoencoder: AutoencoderTiny) -> Tensor:
    """Return latents [N, 4, 16, 16] of all pictures, not yet scaled."""
    chunks = pixels.split(64)
    return torch.cat([autoencoder.encode(normalise(chunk.to(autoencoder.device))).latents.cpu() for chunk in chunks])


@torch.no_grad()
def fidelity(pixels: Tensor, autoencoder: AutoencoderTiny) -> Tensor:
    """Return the peak signal-to-noise ratio [N], in dB, of pictures that went through the autoencoder."""
    found = []
    for chunk in pixels.split(64):
        images = normalise(chunk.to(autoencoder.device))
        output = autoencoder.decode(autoencoder.encode(images).latents).sample.clamp(-1, 1)
        found.append(-10 * ((images - output) / 2).square().flatten(1).mean(dim=1).log10().cpu())
    return torch.cat(found)
