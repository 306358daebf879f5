"""Other states to train on than recorded trajectories as they are, for comparisons."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidefold.demo import bundle
from guidefold.denoiser import find_denoiser, predict
from guidefold.distillation.states import RecordedStates
from guidefold.guidance import classifier_free, per_row
from guidefold.keeping import Adapter
from guidefold.trajectories.conditions import digest
from guidefold.trajectories.states import States, energy_of, inputs_of


class NoisedData:
    """Ordinary training data: real pictures with noise added, instead of states that guided sampling visits.

    Prompts, scales, timesteps and order are those of the recorded trajectories; only the latents differ.
    """

    def __init__(self, pipe: Any, recorded: RecordedStates, seed: int) -> None:
        self.pipe, self.recorded, self.seed = pipe, recorded, seed
        self.static, self.spec = recorded.static, recorded.spec
        self.validation = recorded.validation
        self.empty = pipe.encode_prompt("", pipe.device, 1, False)[0]
        self.latents = picture_latents(pipe)
        self.rows = {digest(prompt): row for row, prompt in enumerate(bundle.prompts())}
        self.adapter: Adapter | None = None

    @torch.no_grad()
    def batch(self, step: int) -> States:
        """Return the recorded batch with noised pictures for latents, and the teacher's answers there."""
        states = dict(self.recorded.batch(step))
        generator = torch.Generator().manual_seed(self.seed + step)
        clean = self.latents[[self.rows[number] for number in states["condition"].tolist()]]
        noise = torch.randn(clean.shape, generator=generator)
        states["call.sample"] = self.pipe.scheduler.add_noise(clean, noise, states["call.timestep"].long())
        inputs = {name: states[f"call.{name}"] for name in ("sample", "timestep", "encoder_hidden_states")}
        empty = self.empty.expand(len(clean), -1, -1)
        assert self.adapter is not None
        with self.adapter.disabled():
            cond = predict(self.pipe.unet, inputs, self.static)
            uncond = predict(self.pipe.unet, {**inputs, "encoder_hidden_states": empty}, self.static)
        guided = classifier_free(cond, uncond, states["guidance_scale"])
        return states | {"energy": energy_of(cond, guided), "pred_guided": guided}


@torch.no_grad()
def picture_latents(pipe: Any) -> Tensor:
    """Return the scaled latents [N, 4, 16, 16] of the pictures that the teacher's training prompts describe."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "teachers"))
    import autoencoder
    import data as drawn
    import emoji
    from export import listed

    emojis, pixels = drawn.everything(Path(drawn.__file__).parent / "cache")
    place = listed(emojis, emoji.TRAIN)
    pictures = pixels[[place[prompt] for prompt in bundle.prompts()]]
    return autoencoder.encode(pictures, pipe.vae) * pipe.vae.config.scaling_factor


class OtherScales:
    """Recorded states with another guidance scale every time that one is drawn.

    With classifier-free guidance alone, cond + (s - 1) (cond - uncond), the prediction at any scale follows from that
    at one of them and the one without guidance, which the bare model makes once more: a third of a step.
    """

    def __init__(self, pipe: Any, recorded: RecordedStates, seed: int) -> None:
        self.denoiser, self.recorded, self.seed = find_denoiser(pipe), recorded, seed
        self.static, self.spec, self.validation = recorded.static, recorded.spec, recorded.validation
        self.adapter: Adapter | None = None

    @torch.no_grad()
    def batch(self, step: int) -> States:
        """Return the recorded batch, asked at scales drawn evenly from those that were recorded."""
        states, drawn = dict(self.recorded.batch(step)), self.recorded.trajectory
        generator = torch.Generator().manual_seed(100_003 * self.seed + step)
        own, share = states["guidance_scale"], torch.rand(len(states["step"]), generator=generator)
        other = drawn.scale_min + (drawn.scale_max - drawn.scale_min) * share
        assert self.adapter is not None
        with self.adapter.disabled():
            cond = predict(self.denoiser, inputs_of(states), self.static)
        ratio = (other - 1) / (own - 1)
        guided = cond + per_row(ratio, cond) * (states["pred_guided"] - cond)
        energy = states["energy"] * ratio.square()
        return states | {"guidance_scale": other, "pred_guided": guided, "energy": energy}
