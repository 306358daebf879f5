"""Teacher A: a small text-conditioned UNet in latent space and its text encoder; 10 % of captions are dropped."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from clip import WIDTH
from conditions import Texts
from loop import Plan, fit


def model() -> UNet2DConditionModel:
    """Return the denoiser: thin at 16 x 16, where a channel costs most; most parameters are at 8 x 8 and 4 x 4."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4, 5),  # the number of heads, despite its name
        cross_attention_dim=WIDTH,
        use_linear_projection=True,
    )


def scheduler() -> DDIMScheduler:
    """Return the schedule of training and sampling; its last step carries no signal (Lin et al. 2023, 2305.08891)."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        steps_offset=1,
        set_alpha_to_one=True,
    )


def strata(count: int, generator: torch.Generator) -> Tensor:
    """Return one number in 0..1 from each of `count` equal strata: the loss is much less noisy than with free ones."""
    device = generator.device
    return (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count


class Teacher(nn.Module):
    """The denoiser and its text encoder, which is trained along, so that a later judge need not share it."""

    def __init__(self, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        # on a CPU, a step of this order of memory takes four fifths of the time
        self.text_encoder, self.unet = text_encoder, model().to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """Return velocities [B, 4, 16, 16] for token ids [B, T]."""
        return self.unet(noisy, timesteps, self.text_encoder(ids)[0]).sample


def train(latents: Tensor, texts: Texts, teacher: Teacher, run: Path, plan: Plan) -> nn.Module:
    """Train on scaled latents [N, 4, 16, 16] of the pictures that `texts` describes."""
    device, noises = next(teacher.parameters()).device, scheduler()
    levels = noises.config["num_train_timesteps"]

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen, told = texts.batch(indices, generator)
        clean, told = latents[chosen].to(device), told.to(device)
        timesteps = (strata(len(chosen), generator) * levels).long()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noisy, target = noises.add_noise(clean, noise, timesteps), noises.get_velocity(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            prediction = teacher(noisy, timesteps, told)
        return nn.functional.mse_loss(prediction.float(), target)

    return fit("a", teacher, loss_of, size=len(texts.groups), plan=plan, run=run)
