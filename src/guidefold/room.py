"""Where a model computes, and what is told when there is no more room there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def hooks_on(module: nn.Module) -> Iterator[tuple[torch.device, bool]]:
    """Yield where hooks of accelerate or diffusers make one module compute, and whether they move its weights there."""
    hook = vars(module).get("_hf_hook")
    for one in (hook, *getattr(hook, "hooks", ())):
        device = getattr(one, "execution_device", None)
        if device is not None:
            yield exact(device), bool(getattr(one, "offload", True))  # False: they lie there
    for one in getattr(vars(module).get("_diffusers_hook"), "hooks", {}).values():
        group = getattr(one, "group", None)
        if group is not None:
            yield exact(group.onload_device), True


def exact(device: Any) -> torch.device:
    """Return a device with its number, as tensors tell it."""
    found = torch.device(device)
    if found.index is None and found.type not in ("cpu", "meta"):
        return torch.device(found.type, torch.accelerator.current_device_index())
    return found


def is_offloaded(module: nn.Module) -> bool:
    """Tell whether some of a network's weights come to their device only while they are needed."""
    return any(moves for part in module.modules() for _, moves in hooks_on(part))


def execution_device(module: nn.Module) -> torch.device:
    """Return where a network computes: where a hook makes it, or else at its first weight."""
    found = next((device for part in module.modules() for device, _ in hooks_on(part)), None)
    return next(iter(module.parameters())).device if found is None else found


def device_within(network: nn.Module, name: str) -> torch.device:
    """Return where a part of a network computes: where the nearest hook makes it, or else at its first weight."""
    path = name
    while True:
        found = next(hooks_on(network.get_submodule(path)), None)
        if found is not None:
            return found[0]
        if not path:
            return next(network.get_submodule(name).parameters()).device
        path = path.rpartition(".")[0]


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
