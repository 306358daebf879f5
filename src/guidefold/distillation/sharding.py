"""A denoiser that no single GPU holds: its weights shared out over processes, as `accelerate launch` asks with FSDP."""

import os
from collections.abc import Iterable

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from guidefold.processes import place


def is_asked() -> bool:
    """Tell whether these processes were launched to share out weights: `accelerate launch --use_fsdp`."""
    return place()[1] > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true", "yes")


def shard(denoiser: nn.Module, device: torch.device, beside: Iterable[nn.Module] = ()) -> None:
    """Share out a denoiser's frozen weights, a repeated block at a time, over all processes; it stays so.

    Every process must then call it equally often, with batches of its own. Of networks `beside` it each has a whole.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (place()[1],))
    lists = [one for one in denoiser.modules() if isinstance(one, nn.ModuleList)]
    inner = {id(part) for one in lists for block in one for part in block.modules() if part is not block}
    for block in (block for one in lists if id(one) not in inner for block in one):
        if any(True for _ in block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(denoiser, mesh=mesh)
    for network in beside:
        network.to(device)
