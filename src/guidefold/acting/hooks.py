"""What attaching puts on a denoiser: hooks on targets, and on the layers that projections are fused into."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.adapters.targets import FUSED, shape_of


@dataclass(eq=False)
class Target:
    """What a target's hook knows of the current call: no name, so that equal blocks share one compiled graph."""

    modulation: Tensor | None = None


@dataclass
class Fusion:
    """A layer that `fuse_qkv_projections` makes of targets, if it does, and the hook for it."""

    parent: nn.Module
    leaf: str
    hook: Any
    layer: nn.Module | None = None


@dataclass
class Attachment:
    """What attaching did, so that detaching can undo it, and what the current call is conditioned on.

    `scoped`: the adapter acts only in calls that give it a scale, those of `pipes` or of a guider; what else calls the
    denoiser, such as a pipeline that shares it, gets the base model.
    """

    denoiser: nn.Module
    names: tuple[str, ...]
    scoped: bool
    pipes: list[Any] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)
    fusions: list[Fusion] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    rows: int = 0  # images of the current call; 0 where a batch of other sequences, such as frames, may have as many
    strength: Tensor | None = None
    tokens: Tensor | None = None
    negative: dict[str, Tensor] = field(default_factory=dict)

    def takes(self, pipe: Any, denoiser: nn.Module) -> bool:
        """Tell whether a further pipeline can be served: one of the same denoiser, after others."""
        return self.scoped and pipe is not None and self.denoiser is getattr(denoiser, "_orig_mod", denoiser)

    def clear(self) -> None:
        """Forget the current call."""
        for target in self.targets:
            target.modulation = None


def acting_on(denoiser: nn.Module) -> list[Any]:
    """Return the adapters that are attached to a denoiser, or to the one that it is a copy of."""
    hooks = getattr(denoiser, "_orig_mod", denoiser)._forward_pre_hooks.values()
    found = [(vars(hook).get("adapter"), vars(hook).get("attachment")) for hook in hooks if hasattr(hook, "__dict__")]
    # a copy keeps the hooks of an adapter that has since been detached
    return [adapter for adapter, attachment in found if adapter and adapter._attachment is attachment]


def tokens_of(inputs: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """Return an attention's input and output as tokens [B, T, D], where it is given pictures [B, C, H, W].

    Some attentions put out their heads apart, [B, T, H, D / H].
    """
    if inputs.dim() == 4:
        return inputs.flatten(2).mT, output.flatten(2).mT
    return inputs, output.flatten(inputs.dim() - 1)


def shaped_like(output: Tensor, inputs: Tensor, tokens: Tensor) -> Tensor:
    """Return what `tokens_of` made of an output as it was, in memory too, or later layers round otherwise."""
    if tokens.shape == output.shape:
        return tokens
    if inputs.dim() != 4:
        return tokens.view(output.shape)
    return torch.empty_like(output).copy_(tokens.mT.reshape(output.shape))


def batch_first(inputs: Tensor, output: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return a linear layer's input and output [B, S, D] where it is given sequences first, [S, B, D]."""
    if output.dim() == 3 and output.shape[0] != rows == output.shape[1]:
        return inputs.transpose(0, 1), output.transpose(0, 1)
    return inputs, output


def fusions(denoiser: nn.Module, hooks: dict[str, Any]) -> list[Fusion]:
    """Return every layer that `fuse_qkv_projections` could make of targets with these hooks."""
    found = []
    for name in dict.fromkeys(name.rpartition(".")[0] for name in hooks):
        parent = denoiser.get_submodule(name)
        for leaf, parts in FUSED.items():
            changes = [hooks.get(f"{name}.{part}") for part in parts]
            if any(changes) and all(getattr(parent, part, None) is not None for part in parts):
                widths = [shape_of(parent.get_submodule(part))[1] for part in parts]
                found.append(Fusion(parent, leaf, piecewise(changes, widths)))
    return found


def piecewise(hooks: list[Any], widths: list[int]) -> Any:
    """Return a hook that gives each of the hooks its piece of the output."""

    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        pieces = output.split(widths, dim=-1)
        changed = [hook and hook(module, args, kwargs, piece) for hook, piece in zip(hooks, pieces, strict=True)]
        return torch.cat([a if b is None else b for a, b in zip(pieces, changed, strict=True)], dim=-1)

    return change


def follow(attachment: Attachment) -> None:
    """Act on the layers that `fuse_qkv_projections` has made of targets since the last time."""
    for fusion in attachment.fusions:
        layer = getattr(fusion.parent, fusion.leaf, None)
        if layer is not fusion.layer:
            fusion.layer = layer
            if layer is not None:
                attachment.handles.append(layer.register_forward_hook(fusion.hook, with_kwargs=True))
