"""Where an adapter acts: attention blocks, found by structure in any denoiser."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from guidefold.adapters.patterns import full_matches
from guidefold.denoiser import prediction_of
from guidefold.errors import ModelError

# what `fuse_qkv_projections` makes of layers, which stay where they are but are no longer called
FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the layer that LoRA has wrapped, or the module itself."""
    base = getattr(module, "base_layer", None)
    return base if isinstance(base, nn.Module) else module


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer, also one that LoRA or quantisation has wrapped."""
    module = unwrapped(module)
    # a mixture of experts has linear layers of no width, for experts that it keeps elsewhere
    return bool(getattr(module, "in_features", 0)) and bool(getattr(module, "out_features", 0))


def is_convolution(module: nn.Module) -> bool:
    """Tell whether a module is a plain 2D convolution with a square kernel, also one that LoRA has wrapped."""
    module = unwrapped(module)
    if not isinstance(module, nn.Conv2d) or module.groups > 1 or isinstance(module.padding, str):
        return False
    squares = (module.kernel_size, module.stride, module.padding, (1, *module.dilation))
    return all(len(set(pair)) == 1 for pair in squares) and module.padding_mode == "zeros"


def is_layer(module: nn.Module) -> bool:
    """Tell whether a low-rank update fits a module."""
    return is_linear(module) or is_convolution(module)


def is_attention(module: nn.Module) -> bool:
    """Tell whether a module is an attention: whatever makes queries and keys with linear layers."""
    return all(is_linear(getattr(module, name, nn.Identity())) for name in ("to_q", "to_k"))


def is_attended(module: nn.Module) -> bool:
    """Tell whether a residual of tokens fits a module."""
    return is_attention(module) or is_linear(module)


def attentions(denoiser: nn.Module) -> dict[str, nn.Module]:
    """Return every attention module by name."""
    return {name: module for name, module in denoiser.named_modules() if is_attention(module)}


def is_list(denoiser: nn.Module, name: str) -> bool:
    return not name or isinstance(denoiser.get_submodule(name), nn.ModuleList)


def blocks(denoiser: nn.Module) -> list[str]:
    """Return the names of transformer blocks: what holds attention, or else the items of the outermost lists."""
    holding = {}
    for name in attentions(denoiser):
        parent = name.rpartition(".")[0]
        holding[name if is_list(denoiser, parent) else parent] = None
    if holding:
        return list(holding)
    lists = [name for name, module in denoiser.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return [f"{name}.{number}" for name in outermost for number in range(len(denoiser.get_submodule(name)))]  # pyright: ignore[reportArgumentType]


def last_blocks(denoiser: nn.Module) -> tuple[str, ...]:
    """Return the last transformer block of every list of them, whose answer of text may be dropped."""
    last = {name.rpartition(".")[0]: name for name in blocks(denoiser)}
    return tuple(last.values())


def block_linears(denoiser: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of every transformer block: attention in and out, MLP in and out, no modulation."""
    found: dict[str, nn.Module] = {}
    for block in blocks(denoiser):
        for name, module in denoiser.get_submodule(block).named_modules(prefix=block):
            inside_linear = any(name.startswith(f"{other}.") for other in found)
            modulates = re.search(r"norm|modul|\bada", name.removeprefix(block))
            unused = is_dropped(denoiser, name) or is_fused(denoiser, name)
            if is_linear(module) and not inside_linear and not modulates and not unused:
                found[name] = module
    return found


def is_dropped(denoiser: nn.Module, name: str) -> bool:
    """Tell whether a layer makes queries of text for a joint attention that drops the text's answer: the last one."""
    parent, _, leaf = name.rpartition(".")
    return leaf == "add_q_proj" and getattr(denoiser.get_submodule(parent), "to_add_out", None) is None


def is_fused(denoiser: nn.Module, name: str) -> bool:
    """Tell whether a layer is one that `fuse_qkv_projections` has made of others."""
    parent, _, leaf = name.rpartition(".")
    modules = dict(denoiser.get_submodule(parent).named_children())
    return leaf in FUSED and modules.keys() >= set(FUSED[leaf])


@torch.no_grad()
def find_output(denoiser: nn.Module, arguments: dict[str, Any]) -> str | None:
    """Return the layer that makes the prediction: the last one to be called, if it puts out as many numbers.

    None for a denoiser whose prediction some other kind of module makes, or that cannot be run by itself.
    """
    denoiser = getattr(denoiser, "_orig_mod", denoiser)
    called: list[tuple[str, int]] = []

    def note(name: str) -> Any:
        return lambda module, args, output: called.append((name, output.numel()))

    layers = [(name, module) for name, module in denoiser.named_modules() if is_layer(module)]
    handles = [module.register_forward_hook(note(name)) for name, module in layers]
    try:
        prediction = prediction_of(denoiser(**arguments))
    except Exception:  # what a pipeline sets up around its denoiser may be missing, such as a cache's context
        return None
    finally:
        for handle in handles:
            handle.remove()
    name, numbers = called[-1] if called else ("", 0)
    wanted = sum(map(torch.numel, prediction)) if isinstance(prediction, (list, tuple)) else prediction.numel()
    return name if numbers >= wanted else None


def matching(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """Return the names that are one of the patterns, end in one, or fully match a single regex, as in PEFT."""
    found = {name for name in names for pattern in patterns if name == pattern or name.endswith(f".{pattern}")}
    return found | full_matches(patterns[0], names) if len(patterns) == 1 else found


def matches(name: str, patterns: Sequence[str]) -> bool:
    return bool(matching([name], patterns))


def find_targets(denoiser: nn.Module, *, linears: bool, target_modules: tuple[str, ...] | None) -> dict[str, nn.Module]:
    """Return the modules to adapt by name, in the denoiser's order. Raises ModelError when there are none."""
    if target_modules is None:
        found = {} if linears else attentions(denoiser)
        found = found or block_linears(denoiser)
        if not found:
            raise ModelError(
                f"{type(denoiser).__name__} has no attention blocks to adapt; name layers with target_modules"
            )
        return found
    modules = dict(denoiser.named_modules())
    matched = matching(list(modules), target_modules)
    chosen = {name: module for name, module in modules.items() if name in matched}
    found = {name: module for name, module in chosen.items() if (is_layer if linears else is_attended)(module)}
    if not chosen:
        raise ModelError(
            f"target_modules {list(target_modules)} match nothing in {type(denoiser).__name__}; {hint(denoiser)}"
        )
    if not found:
        wanted = "linear layers and 2D convolutions" if linears else "attentions and linear layers"
        name, module = next(iter(chosen.items()))
        more = "; film with a rank takes convolutions" if not linears and is_layer(module) else ""
        raise ModelError(
            f"target_modules match {name}, a {type(module).__name__}, but this design adapts {wanted}{more}"
        )
    return found


def find_deltas(denoiser: nn.Module, target_modules: tuple[str, ...] | None) -> dict[str, nn.Module]:
    """Return the layers whose weights get a plain low-rank update: the blocks' linear layers and all convolutions."""
    if target_modules is not None:
        modules = dict(denoiser.named_modules())
        matched = matching(list(modules), target_modules)
        return {name: module for name, module in modules.items() if name in matched and is_layer(module)}
    found, linears, inside = {}, block_linears(denoiser), ""
    for name, module in denoiser.named_modules():
        if inside and name.startswith(inside):
            continue
        if name in linears or is_convolution(module):
            found[name] = module
            inside = f"{name}."
    return found


def hint(denoiser: nn.Module) -> str:
    """Return examples of names that can be adapted."""
    return f"for instance {', '.join(list(block_linears(denoiser))[:3])}"


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """Return input and output width of a target, and a convolution's kernel, stride and padding."""
    base = unwrapped(module)
    if isinstance(base, nn.Conv2d):
        geometry = (base.kernel_size[0], base.stride[0], int(base.padding[0]))
        return base.in_channels, base.out_channels, *geometry
    if is_linear(base):
        return int(base.in_features), int(base.out_features)  # pyright: ignore[reportArgumentType]
    query = module.get_submodule("to_q")
    out = getattr(module, "to_out", None)
    out = out[0] if isinstance(out, (nn.ModuleList, nn.Sequential)) else out
    width = shape_of(query)[0]
    return width, shape_of(out)[1] if out is not None and is_linear(out) else width
