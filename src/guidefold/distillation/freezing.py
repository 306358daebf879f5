"""A denoiser while an adapter learns: frozen, checkpointed and compiled for a while, and then as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from guidefold.config import HoldingConfig, TrainConfig
from guidefold.errors import ModelError
from guidefold.room import execution_device, is_offloaded


def settled(config: TrainConfig, denoiser: nn.Module) -> TrainConfig:
    """Return settings with what they leave to the model and its device filled in.

    Raises ModelError for a model that cannot be trained so.
    """
    name, offloaded = type(denoiser).__name__, is_offloaded(denoiser)
    how = filled(config, denoiser, execution_device(denoiser).type, offloaded)
    if offloaded and not how.gradient_checkpointing:
        raise ModelError(
            f"{name} is offloaded, and without gradient checkpointing all of its weights would wait on the device for "
            "the backward pass; give gradient_checkpointing, or no offload"
        )
    if how.gradient_checkpointing and casts_layerwise(denoiser):
        raise ModelError(
            f"{name} is cast layer by layer, which gradient checkpointing does not stand; turn one of them off"
        )
    if from_disk(denoiser):
        raise ModelError(f"{name} is offloaded to disk, from where gradients come back wrong; offload it to the CPU")
    if config.compile and not getattr(denoiser, "_repeated_blocks", None):
        raise ModelError(f"{name} names no repeated blocks to compile; leave compile out")
    return how


def settled_for(config: TrainConfig, denoiser: nn.Module, place: str, holding: HoldingConfig) -> TrainConfig:
    """Return settings as they will be where a denoiser is going to be held. Raises ModelError as `settled`."""
    return filled(config, denoiser, torch.device(place).type, holding.offload == "group")


def filled(config: TrainConfig, denoiser: nn.Module, device: str, offloaded: bool) -> TrainConfig:
    """Fill in precision and checkpointing: on a CPU both cost time, and memory is rarely short."""
    can = bool(getattr(denoiser, "_supports_gradient_checkpointing", False))
    precision, checkpointing = config.mixed_precision, config.gradient_checkpointing
    if precision is None:
        precision = "bf16" if has_bf16(device) else "no"
    if checkpointing is None:
        checkpointing = can and (device != "cpu" or offloaded)
    elif checkpointing and not can:
        raise ModelError(f"{type(denoiser).__name__} has no gradient checkpointing; leave gradient_checkpointing out")
    return replace(config, mixed_precision=precision, gradient_checkpointing=checkpointing)


def has_bf16(device: str) -> bool:
    """Tell whether a kind of device computes in bfloat16 at full speed."""
    return device == "xpu" or (device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))


def hooks_of(denoiser: nn.Module) -> Iterator[tuple[str, Any]]:
    """Return what diffusers has hung on a network's layers, by name."""
    for module in denoiser.modules():
        yield from getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).items()


def casts_layerwise(denoiser: nn.Module) -> bool:
    """Tell whether diffusers casts a network's layers to another precision only while they run."""
    return any(name == "layerwise_casting" for name, _ in hooks_of(denoiser))


def from_disk(denoiser: nn.Module) -> bool:
    """Tell whether diffusers keeps a network's groups of layers on disk."""
    groups = (getattr(hook, "group", None) for _, hook in hooks_of(denoiser))
    return any(getattr(group, "offload_to_disk_path", None) is not None for group in groups)


@contextmanager
def frozen(denoiser: Any, *, gradient_checkpointing: bool, compile: bool = False) -> Iterator[None]:
    """Freeze a denoiser for a while, and leave it as it was."""
    training = {name: module.training for name, module in denoiser.named_modules()}
    needed = {name for name, value in denoiser.named_parameters() if value.requires_grad}
    switching = gradient_checkpointing and not getattr(denoiser, "is_gradient_checkpointing", False)
    denoiser.eval().requires_grad_(False)
    if switching:
        denoiser.enable_gradient_checkpointing()
    if compile:
        denoiser.compile_repeated_blocks()
    try:
        yield
    finally:
        if compile:
            for module in denoiser.modules():
                vars(module).pop("_compiled_call_impl", None)
        if switching:
            denoiser.disable_gradient_checkpointing()
        for name, module in denoiser.named_modules():
            module.training = training.get(name, module.training)
        for name, value in denoiser.named_parameters():
            value.requires_grad_(name in needed)
