"""What ComfyUI calls a model with, as diffusers would name it and count it."""

import math
from typing import Any

import torch
from torch import Tensor

from guidefold.adapters import ConditionSpec
from guidefold.adapters.conditions import NEGATIVE
from guidefold.errors import ModelError

TEXT, SIZES = "text_embeds", "time_ids"  # what SDXL's vector `y` is made of


def time_of(model: Any, sigma: Tensor, spec: ConditionSpec) -> Tensor:
    """Return timesteps [B] as diffusers' pipeline gives them to the denoiser."""
    sampling = model.model_sampling
    time = sampling.timestep(sigma).float()
    if float(sampling.timestep(torch.as_tensor(float(sampling.sigma_max)))) <= 1:
        time = time * 1000
    if type(model.diffusion_model).__name__.startswith("NextDiT"):
        time = 1000 - time  # Lumina and Z-Image count from noise to picture in diffusers
    return time / spec.timestep_scale


def conditions(spec: ConditionSpec, given: dict[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return an adapter's conditions of a call's `c_crossattn`, `y` and whatever else there is, a row per image.

    `prefix` is that of a negative prompt's. Raises ModelError where the model is not called with one of them.
    """
    every = {**spec.tokens, **spec.vectors, **spec.labels}
    wanted = {name: width for name, width in every.items() if name.startswith(NEGATIVE) == bool(prefix)}
    found: dict[str, Tensor] = {}
    for name, width in wanted.items():
        value = tokens_of(given) if name in spec.tokens else vector_of(name.removeprefix(prefix), width, wanted, given)
        if value is None or (name in spec.vectors and value.reshape(len(value), -1).shape[1] != width):
            raise ModelError(f"this adapter reads {name}, which this model is not called with; use another adapter")
        if name in spec.tokens and value.shape[-1] != width:
            raise ModelError(
                f"the prompt has {value.shape[-1]} numbers a token here, {width} where the adapter was trained; "
                "use the base model's own text encoder"
            )
        found[name] = value
        mask = given.get("attention_mask")
        if name in spec.tokens and mask is not None and mask.dim() == 2:
            found[f"{name.removesuffix('_hidden_states')}_attention_mask"] = mask
    return found


def tokens_of(given: dict[str, Any]) -> Tensor | None:
    """Return the prompt's tokens [B, T, D]."""
    return given.get("c_crossattn")


def vector_of(name: str, width: int, wanted: dict[str, int], given: dict[str, Any]) -> Tensor | None:
    """Return one of a call's vectors [B, D]: by its name, or `y` or the part of it that it is."""
    leaf, y = name.rpartition(".")[2], given.get("y")
    if leaf in given:
        return given[leaf]
    if y is None or leaf not in (TEXT, SIZES):
        return y
    pooled = next(width for other, width in wanted.items() if other.endswith(TEXT))
    return y[:, :pooled] if leaf == TEXT else sizes_of(y[:, pooled:], width)


def sizes_of(codes: Tensor, count: int) -> Tensor:
    """Return the whole numbers [B, count] whose cosines and sines at falling frequencies these are.

    The slowest wave tells a number roughly and without doubt, each faster one tells it better.
    """
    cosines, sines = codes.double().unflatten(1, (count, 2, -1)).unbind(2)
    half = cosines.shape[-1]
    waves = torch.exp(-math.log(10_000) * torch.arange(half, device=codes.device, dtype=torch.float64) / half)
    angles = torch.atan2(sines, cosines)
    value = (angles[..., -1] % (2 * math.pi)) / waves[-1]
    for place in reversed(range(half - 1)):
        turns = ((value * waves[place] - angles[..., place]) / (2 * math.pi)).round()
        value = (turns * 2 * math.pi + angles[..., place]) / waves[place]
    return value.round().float()


def some_rows(value: Any, rows: int, chosen: list[int]) -> Any:
    """Return some images' part of what a call is given; what has no row per image is shared."""
    if isinstance(value, Tensor):
        return value[chosen] if value.dim() and value.shape[0] == rows else value
    if isinstance(value, dict):
        return {name: some_rows(item, rows, chosen) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(some_rows(item, rows, chosen) for item in value)
    return value
