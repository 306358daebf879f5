"""Teacher A: a small text-conditioned UNet in latent space, trained with 10 % of its captions dropped."""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

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


def train(latents: Tensor, texts: Texts, unet: UNet2DConditionModel, run: Path, plan: Plan) -> UNet2DConditionModel:
    """Train on scaled latents [N, 4, 16, 16] of the pictures that `texts` describes."""
    device, noises = unet.device, scheduler()
    levels = noises.config["num_train_timesteps"]

    def loss_of(indices: Tensor, generator: torch.Generator) -> Tensor:
        chosen, states = texts.batch(indices, generator)
        clean, states = latents[chosen].to(device), states.to(device)
        timesteps = (strata(len(chosen), generator) * levels).long()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        noisy, target = noises.add_noise(clean, noise, timesteps), noises.get_velocity(clean, noise, timesteps)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            prediction = unet(noisy, timesteps, states).sample
        return nn.functional.mse_loss(prediction.float(), target)

    return fit("a", unet, loss_of, size=len(texts.groups), plan=plan, run=run)
