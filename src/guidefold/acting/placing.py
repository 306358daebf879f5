"""Where an adapter lies: what its targets share where the denoiser is called, each layer where its target computes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from guidefold.room import device_within, hooks_on

if TYPE_CHECKING:
    from guidefold.adapters.network import Network


@dataclass(frozen=True)
class Homes:
    """Where the targets of an adapter's layers compute, in order, by one map of a denoiser's parts to devices."""

    mapped: Any
    devices: list[torch.device]


def home_of(denoiser: nn.Module, latents: torch.device) -> torch.device:
    """Return where a denoiser that is given latents on a device computes: there, or where a hook brings them."""
    return next((device for device, _ in hooks_on(denoiser)), latents)


def settle(network: "Network", denoiser: nn.Module, device: torch.device, known: Homes | None = None) -> Homes:
    """Bring an adapter's weights to a device, and each layer to its target's; their precision stays their own.

    Returns where the layers are, to be given back as `known` at the next call.
    """
    if network.heads.weight.device != device:
        network.to(device)
    mapped = vars(denoiser).get("hf_device_map")  # what accelerate and diffusers leave on a model that they spread out
    if known is None or known.mapped is not mapped:
        names = [name.partition(":")[0] for name in network.layered] if mapped is not None else []
        known = Homes(mapped, [device_within(denoiser, name) for name in names])
    for layer, home in zip(network.layers, known.devices or [device] * len(network.layers), strict=True):
        if layer.up.device != home:
            layer.to(home)
    return known
