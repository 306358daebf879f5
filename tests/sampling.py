"""What tests of pipelines share: an adapter that does something, sampling, and what attaching must not change."""

import copy
import inspect

import torch
from torch import Tensor
from zoo import shake

from guidefold.config import AdapterConfig, TrajectoryConfig
from guidefold.keeping import Adapter
from guidefold.trajectories.recorder import Recorder

PROMPTS = ["a red fox", "a blue cat"]
STEPS = 3
FILM = dict(design="film", rank=0, squeeze=4)  # what folds into the denoiser's parameters


def build(pipe, *, design="cross_attention", rank=2, **settings) -> Adapter:
    """Return an adapter for a pipeline that does something."""
    spec = Recorder(pipe, PROMPTS, TrajectoryConfig()).spec
    adapter = Adapter.build(pipe.unet, spec, AdapterConfig(design=design, rank=rank, width=8, **settings))
    shake(adapter)
    return adapter


def sample(pipe, prompt="a red fox", scale=7.5, seed=0, **more) -> Tensor:
    """Return latents [B, ...], with one generator an image, so that an image depends on nothing beside it."""
    count = (1 if isinstance(prompt, str) else len(prompt)) * more.get("num_images_per_prompt", 1)
    call = dict(num_inference_steps=STEPS, output_type="latent", generator=generators(seed, count)) | more
    return pipe(prompt, guidance_scale=scale, **call).images


def generators(seed, count):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def sharing(pipe):
    """Return a pipeline with the same networks and a scheduler of its own, as a server makes one for a request."""
    parts = {**pipe.components, "scheduler": copy.deepcopy(pipe.scheduler)}
    other = getattr(type(pipe), "_folded_from", type(pipe))(**parts, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


def assert_close(one: Tensor, other: Tensor, tolerance=3e-6) -> None:
    """Check that two are the same but for rounding, beside the largest number."""
    assert one.isfinite().all() and (one - other).abs().max() <= tolerance * other.abs().max()


def snapshot(pipe):
    """Return what attaching must not change for good."""
    unet = pipe.unet
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules()]
    needed = [p.requires_grad for p in unet.parameters()]
    return type(pipe), inspect.signature(pipe.__call__), hooks, list(unet.state_dict()), needed, list(vars(pipe))
