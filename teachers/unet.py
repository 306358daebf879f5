"""The denoiser: a small text-conditioned UNet in latent space, trained with 10 % of its captions dropped."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from clip import WIDTH
from loop import fit

DROPPED = 0.1


def model() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 5),  # the number of heads, despite its name
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


def train(
    latents: Tensor, condition: Tensor, empty: Tensor, unet: UNet2DConditionModel, run: Path, *, steps: int, batch: int
) -> UNet2DConditionModel:
    """Train on scaled latents [N, 4, 16, 16] and text states [N, T, D]; `empty` [T, D] stands for a dropped caption."""
    device, noises = unet.device, scheduler()
    levels = noises.config["num_train_timesteps"]

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        clean, states = latents[indices].to(device), condition[indices].to(device)
        drop = torch.rand(len(indices), generator=generator, device=device) < DROPPED
        states = torch.where(drop[:, None, None], empty.to(device), states)
        # one timestep from each of B equal strata: the loss is much less noisy than with independent ones
        strata = torch.arange(len(indices), device=device) + torch.rand(
            len(indices), generator=generator, device=device
        )
        timesteps = (strata * levels / len(indices)).long()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noisy, target = noises.add_noise(clean, noise, timesteps), noises.get_velocity(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16):
            prediction = unet(noisy, timesteps, states).sample
        return nn.functional.mse_loss(prediction.float(), target)

    return fit("unet", unet, loss_of, size=len(latents), steps=steps, batch=batch, peak=1e-3, run=run, decay=0.999)
