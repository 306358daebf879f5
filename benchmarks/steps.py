"""Which steps' guidance brings out what the prompt asks for: noisy ones and late ones, guided or not, mixed.

python benchmarks/steps.py
"""

import argparse
from typing import Any

import torch
from torch import Tensor

from common import RESULTS, provenance, save
from guidefold.demo import bundle
from guidefold.evaluation.metrics import clip_score
from guidefold.guidance import classifier_free
from guidefold.keeping import Adapter
from guidefold.models import load_adapter
from pages import LATE

STEPS, BATCH = 20, 32
# who predicts at the noisy steps, and who at the late ones
MIXES = (
    ("none", "none"),
    ("cfg", "cfg"),
    ("cfg", "none"),
    ("none", "cfg"),
    ("adapter", "adapter"),
    ("adapter", "cfg"),
    ("cfg", "adapter"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0, 6.0])
    options = parser.parse_args()
    made = provenance()
    pipe, features = bundle.load_teacher(), bundle.BundledFeatures()
    prompts = bundle.held_out_prompts()[: options.images]
    adapter = load_adapter("bundled").attach(pipe)
    texts = features.texts(prompts)
    rows = []
    for scale in options.scales:
        for noisy, late in MIXES:
            pictures = torch.cat(
                [mixed(pipe, adapter, prompts, start, scale, noisy, late) for start in range(0, len(prompts), BATCH)]
            )
            score = clip_score(features.images(pictures), texts).mean()
            rows.append({"guidance_scale": scale, "noisy": noisy, "late": late, "clip_score": float(score)})
            print(rows[-1], flush=True)
    save(RESULTS / "steps.json", made, {"images": options.images, "late": LATE, "steps": STEPS, "rows": rows})


@torch.no_grad()
def mixed(pipe: Any, adapter: Adapter, prompts: list[str], start: int, scale: float, noisy: str, late: str) -> Tensor:
    """Return pictures [B, 3, 64, 64] of a batch of prompts, from noise that depends on the prompt's place alone."""
    prompts = prompts[start : start + BATCH]
    cond, uncond = pipe.encode_prompt(prompts, pipe.device, 1, True)
    size = pipe.unet.config.sample_size
    seeds = (torch.Generator().manual_seed(1_000_000 + start + row) for row in range(len(prompts)))
    latents = torch.cat([torch.randn(1, pipe.unet.config.in_channels, size, size, generator=seed) for seed in seeds])
    pipe.scheduler.set_timesteps(STEPS)
    latents = latents * pipe.scheduler.init_noise_sigma
    for timestep in pipe.scheduler.timesteps:
        who = late if timestep < LATE else noisy
        prediction = predicted(pipe, adapter, latents, timestep, cond, uncond, scale, who)
        latents = pipe.scheduler.step(prediction, timestep, latents).prev_sample
    return (pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)


def predicted(
    pipe: Any, adapter: Adapter, latents: Tensor, timestep: Tensor, cond: Tensor, uncond: Tensor, scale: float, who: str
) -> Tensor:
    """Return a prediction of the bare model, of CFG or of the adapter."""
    if who == "adapter":
        with adapter.at(scale):
            return pipe.unet(latents, timestep, encoder_hidden_states=cond).sample
    with adapter.disabled():
        pred_cond = pipe.unet(latents, timestep, encoder_hidden_states=cond).sample
        if who == "none":
            return pred_cond
        pred_uncond = pipe.unet(latents, timestep, encoder_hidden_states=uncond).sample
    return classifier_free(pred_cond, pred_uncond, torch.full((len(latents),), scale))


if __name__ == "__main__":
    main()
