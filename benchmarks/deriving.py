"""Models derived from a bundled one, as people derive them: fine-tuned, with a LoRA, with a ControlNet."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from peft import LoraConfig
from PIL import Image
from torch import Tensor, nn

from guidefold import ui

sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
import autoencoder
import data
import emoji
from export import listed

BATCH, DROPPED = 64, 0.1  # pictures of a step, and the share of prompts that is left out
EDGE = 0.12  # how much neighbouring pixels differ where there is an edge


class Drawings:
    """The real pictures that the bundled teachers learnt from."""

    def __init__(self, cache: Path, names: int = 300) -> None:
        self.emojis, self.pixels = data.everything(cache, names)

    def of_style(self, style: str) -> dict[str, int]:
        """Return the names that a style has drawn, each once, with the place of the first picture of it."""
        found: dict[str, int] = {}
        for place, one in enumerate(self.emojis):
            if one.style == style:
                found.setdefault(one.name, place)
        return found

    def trained(self) -> dict[str, int]:
        """Return the captions of training, each once, with the place of the first picture of it."""
        return listed(self.emojis, emoji.TRAIN)


@torch.no_grad()
def embedded(pipe: Any, prompts: Sequence[str]) -> Tensor:
    """Return the text embeddings [N, T, W] of prompts."""
    parts = [list(prompts[start : start + BATCH]) for start in range(0, len(prompts), BATCH)]
    return torch.cat([pipe.encode_prompt(part, pipe.device, 1, False)[0] for part in parts])


def edges_of(pixels: Tensor) -> Tensor:
    """Return where pictures uint8 [N, 3, H, W] have edges: 0 or 1, [N, 3, H, W]."""
    grey = pixels.float().mean(1, keepdim=True) / 255
    across, down = grey.diff(dim=-1, append=grey[..., -1:]), grey.diff(dim=-2, append=grey[..., -1:, :])
    return (torch.maximum(across.abs(), down.abs()) > EDGE).float().expand(-1, 3, -1, -1).contiguous()


def as_picture(edges: Tensor) -> Image.Image:
    """Return one picture of edges [3, H, W]."""
    return Image.fromarray((edges * 255).byte().permute(1, 2, 0).numpy())


def fit(
    pipe: Any,
    parameters: Iterable[nn.Parameter],
    prompts: Sequence[str],
    pixels: Tensor,
    *,
    steps: int,
    rate: float,
    controlnet: ControlNetModel | None = None,
) -> None:
    """Train parameters of a text-to-image pipeline on pictures uint8 [N, 3, H, W] of prompts, by the usual loss."""
    latents = autoencoder.encode(pixels, pipe.vae) * pipe.vae.config.scaling_factor
    texts, empty = embedded(pipe, prompts), embedded(pipe, [""])[0]
    learnt = list(parameters)
    optimizer = torch.optim.AdamW(learnt, lr=rate)
    generator = torch.Generator().manual_seed(0)
    with ui.progress("Deriving", steps) as bar:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 10, (steps - step) / (0.3 * steps))
            chosen = torch.randint(len(latents), (BATCH,), generator=generator)
            told = texts[chosen].clone()
            told[torch.rand(BATCH, generator=generator) < DROPPED] = empty
            controls = edges_of(pixels[chosen]) if controlnet is not None else None
            loss_of(pipe, latents[chosen], told, generator, controlnet, controls).backward()
            nn.utils.clip_grad_norm_(learnt, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            bar.advance(1)
    pipe.unet.requires_grad_(False)


def loss_of(
    pipe: Any,
    clean: Tensor,
    told: Tensor,
    generator: torch.Generator,
    controlnet: ControlNetModel | None,
    controls: Tensor | None,
) -> Tensor:
    """Return the loss of velocities at random timesteps, of latents [B, 4, H, W] that embeddings [B, T, W] tell of."""
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = torch.randint(1000, (len(clean),), generator=generator)
    noisy, more = pipe.scheduler.add_noise(clean, noise, timesteps), {}
    if controlnet is not None:
        down, mid = controlnet(noisy, timesteps, told, controlnet_cond=controls, return_dict=False)
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    predicted = pipe.unet(noisy, timesteps, told, **more).sample
    return nn.functional.mse_loss(predicted, pipe.scheduler.get_velocity(clean, noise, timesteps))


def tuned(pipe: Any, prompts: Sequence[str], pixels: Tensor, steps: int) -> Any:
    """Return the pipeline with all of its denoiser trained further."""
    pipe.unet.requires_grad_(True)
    fit(pipe, pipe.unet.parameters(), prompts, pixels, steps=steps, rate=3e-4)
    return pipe


def with_lora(pipe: Any, prompts: Sequence[str], pixels: Tensor, steps: int) -> Any:
    """Return the pipeline with a LoRA of its attentions."""
    pipe.unet.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    learnt = [value for value in pipe.unet.parameters() if value.requires_grad]
    fit(pipe, learnt, prompts, pixels, steps=steps, rate=3e-3)
    return pipe


def with_controlnet(pipe: Any, prompts: Sequence[str], pixels: Tensor, steps: int) -> Any:
    """Return the pipeline with a ControlNet that follows edges."""
    pipe.unet.requires_grad_(False)
    # two halvings, as between pictures and latents of this teacher
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32, 64))
    fit(pipe, controlnet.parameters(), prompts, pixels, steps=steps, rate=3e-4, controlnet=controlnet)
    return StableDiffusionControlNetPipeline(**pipe.components, controlnet=controlnet.requires_grad_(False).eval())
