"""Which layer a target is now: LoRA wraps layers and unwraps them, fused projections replace them."""

from collections.abc import Callable
from weakref import ref

from torch import nn

from guidefold.adapters.places import TABLE, role_of
from guidefold.adapters.targets import unwrapped

Find = Callable[[], nn.Module | None]
LORA = "peft.tuners.lora."


def finder(denoiser: nn.Module, name: str) -> Find:
    """Return how to find a target's layer, with what LoRA has wrapped around it by now."""
    path = name.partition(":")[0]
    path = path.rpartition(".")[0] if role_of(name) == TABLE else path
    parent, _, leaf = path.rpartition(".")
    # weak, so that a copy of a denoiser that nobody holds any more is freed
    owner = ref(denoiser.get_submodule(parent))
    return lambda: getattr(owner(), "_modules", {}).get(leaf)


def adds(module: nn.Module | None, base: nn.Module) -> bool:
    """Tell whether a layer is the base's, or one that adds to what the base's puts out, as LoRA does.

    Others of PEFT turn or scale it, and so would turn or scale a change of its parameters: DoRA, OFT, IA3.
    """
    if module is base:
        return True
    if module is None or unwrapped(module) is not base:
        return False
    merged, disabled = getattr(module, "merged", False), getattr(module, "disable_adapters", False)
    if merged or disabled:
        return not (merged and disabled)  # its next call takes the merged weights out again
    variants = getattr(module, "lora_variant", {})
    return type(module).__module__.startswith(LORA) and not any(
        name in variants for name in getattr(module, "active_adapters", ())
    )
