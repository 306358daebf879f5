"""Where a model computes, and what is told when there is no more room there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def hook_device(module: nn.Module) -> torch.device | None:
    """Return where accelerate's or diffusers' offloading makes a module compute, or None where nothing is offloaded."""
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in (hook, *getattr(hook, "hooks", ())):
            device = getattr(one, "execution_device", None)
            if device is not None:
                return torch.device(device)
        registry = getattr(part, "_diffusers_hook", None)
        for one in getattr(registry, "hooks", {}).values():
            group = getattr(one, "group", None)
            if group is not None:
                return torch.device(group.onload_device)
    return None


def execution_device(module: nn.Module) -> torch.device:
    """Return where a network computes: what offloads it is asked, or else its first weight."""
    found = hook_device(module)
    return next(iter(module.parameters())).device if found is None else found


def weights_kept() -> Any:
    """Let the backward pass use the weights that the forward pass did, not what offloading has put in their place.

    Autograd remembers a frozen parameter, whose numbers offloading exchanges; here it remembers the numbers.
    Checkpointed blocks do so for as long as they run, so that no more than a block's weights wait.
    """
    return torch.autograd.graph.saved_tensors_hooks(lambda value: value.detach(), lambda value: value)


@contextmanager
def forked(model: Any) -> Iterator[None]:
    """Give random numbers back their state afterwards, on the CPU and where a pipeline or network computes."""
    device = execution_device(model) if isinstance(model, nn.Module) else getattr(model, "_execution_device", None)
    kind = "cpu" if device is None else torch.device(device).type
    if kind in ("cpu", "meta", "mps"):
        with torch.random.fork_rng(devices=[]):
            yield
        return
    with torch.random.fork_rng(devices=[torch.device(device)], device_type=kind):  # pyright: ignore[reportArgumentType]
        yield
