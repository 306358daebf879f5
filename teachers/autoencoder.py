"""The autoencoder between pictures and the latents that the denoiser works on."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from clip import normalise
from loop import fit

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


def train(pixels: Tensor, autoencoder: AutoencoderTiny, run: Path, *, steps: int, batch: int) -> AutoencoderTiny:
    """Train on pixels and edges; noise on the latents keeps their space smooth enough to be generated."""
    device = autoencoder.device

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        images = normalise(pixels[indices].to(device))
        with torch.autocast(device.type, torch.bfloat16):
            latents = autoencoder.encode(images).latents
            noise = torch.randn(latents.shape, generator=generator, device=device)
            output = autoencoder.decode(latents + LATENT_NOISE * noise).sample.float()
        loss = nn.functional.l1_loss(output, images)
        loss = loss + sum(nn.functional.l1_loss(a, b) for a, b in zip(edges(output), edges(images), strict=True))
        return loss + 0.01 * (latents.float().square().mean() - 1).abs()

    return fit("autoencoder", autoencoder, loss_of, size=len(pixels), steps=steps, batch=batch, peak=1e-3, run=run)


@torch.no_grad()
def encode(pixels: Tensor, autoencoder: AutoencoderTiny) -> Tensor:
    """Return latents [N, 4, 16, 16] of all pictures, not yet scaled."""
    chunks = pixels.split(64)
    return torch.cat([autoencoder.encode(normalise(chunk.to(autoencoder.device))).latents.cpu() for chunk in chunks])
