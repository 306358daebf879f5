"""The live form: hooks on layers, each of which changes what a layer puts out, image by image."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from guidefold.acting.finding import Find, finder
from guidefold.acting.shapes import batch_first, shaped_like, tokens_of
from guidefold.adapters.film import Span
from guidefold.adapters.layers import Layer, rows_like
from guidefold.adapters.network import Modulations, Network
from guidefold.adapters.places import SHIFT, TABLE, is_place, layer_of, role_of
from guidefold.adapters.readers import module_of, negative_tokens, read_negative, reads
from guidefold.adapters.targets import FUSED, is_attention, shape_of
from guidefold.denoiser import argument_names
from guidefold.errors import ModelError


@dataclass(eq=False)
class Target:
    """What a target's hook knows of the current call: no name, so that equal blocks share one compiled graph."""

    modulation: Any = None


@dataclass(eq=False)
class Now:
    """What the hooks of all targets know of the current call."""

    strength: Tensor | None = None
    tokens: Tensor | None = None
    negative: dict[str, Tensor] = field(default_factory=dict)
    rows: int = 0  # images; 0 where a batch of other sequences, such as frames, may have as many


Told = tuple[dict[str, Any], Now]  # what targets are changed by, and what they share


@dataclass(eq=False)
class Hook:
    """A hook that is put on and taken off again under one number, so that the compiler knows it when it comes back."""

    find: Find
    act: Any
    name: str = ""
    before: bool = False
    module: nn.Module | None = None
    number: int = 0

    def put(self) -> None:
        module = self.find()
        if module is self.module and self.number in self.dictionary(module):
            return
        self.take()
        self.module = module
        if module is None:
            return
        if not self.number:
            register = module.register_forward_pre_hook if self.before else module.register_forward_hook
            self.number = register(self.act, with_kwargs=True).id
            return
        self.dictionary(module)[self.number] = self.act
        flags = module._forward_pre_hooks_with_kwargs if self.before else module._forward_hooks_with_kwargs
        flags[self.number] = True

    def take(self) -> None:
        module = self.module
        if module is None:
            return
        flags = module._forward_pre_hooks_with_kwargs if self.before else module._forward_hooks_with_kwargs
        self.dictionary(module).pop(self.number, None)
        flags.pop(self.number, None)
        self.module = None

    def dictionary(self, module: nn.Module | None) -> dict[int, Any]:
        if module is None:
            return {}
        return module._forward_pre_hooks if self.before else module._forward_hooks


class Layering:
    """The hooks of an adapter's targets on one denoiser."""

    def __init__(self, network: Network, denoiser: nn.Module) -> None:
        self.network, self.now, self.idle = network, Now(), True
        self.targets = {name: Target() for name in network.shapes}
        layers = dict(zip(network.layered, network.layers, strict=True))
        acts = {name: self.act_of(denoiser, name, layers.get(name)) for name in network.shapes}  # pyright: ignore[reportArgumentType]
        self.hooks = [Hook(finder(denoiser, name), act, name, role_of(name) == TABLE) for name, act in acts.items()]
        self.hooks += fusions(denoiser, {name: act for name, act in acts.items() if not is_place(name)})

    def act_of(self, denoiser: nn.Module, name: str, layer: Layer | None) -> Any:
        target = self.targets[name]
        if is_place(name):
            return self.place_act(denoiser, name, target)
        assert layer is not None
        if reads(name):
            return reader(target, layer, self.now)
        return residual(target, layer, self.now, is_attention(module_of(denoiser, name)))

    def place_act(self, denoiser: nn.Module, name: str, target: Target) -> Any:
        role = role_of(name)
        if role != TABLE:
            return shift(target) if role == SHIFT else affine(target, self.now)
        block = layer_of(denoiser, name)
        value = getattr(block, name.partition(":")[0].rpartition(".")[2])
        width = value.shape[-1]
        return table(target, argument_names(type(block)), (value.numel() // width, width))

    def put(self, without: Collection[str] = ()) -> None:
        """Put the hooks on the layers that the targets are now: LoRA wraps them, fused projections replace them."""
        self.idle = False
        for hook in self.hooks:
            if hook.name not in without:
                hook.put()

    def told(self, made: Modulations, conditions: dict[str, Tensor], rows: int) -> Told:
        """Return what targets are to know of a call, of `rows` images of pictures."""
        changes: dict[str, Any] = dict(zip(self.network.layered, made.parts, strict=True))
        spans = self.network.film.spans if self.network.film is not None else {}
        for name, span in spans.items():
            changes[name] = numbers_of(made.film, span, role_of(name))
        return changes, Now(made.strength, made.tokens, negative_tokens(conditions), rows)

    def tell(self, told: Told) -> None:
        """Give every target what it is changed by from now on."""
        self.idle = False
        changes, now = told
        vars(self.now).update(vars(now))
        for name, change in changes.items():
            self.targets[name].modulation = change

    def kept(self) -> Told:
        """Return what targets know now."""
        return {name: target.modulation for name, target in self.targets.items()}, replace(self.now)

    def clear(self) -> None:
        """Take the hooks off, and leave nothing of the current call."""
        if self.idle:
            return  # as it is wherever the folded form was taken
        for hook in self.hooks:
            hook.take()
        self.tell((dict.fromkeys(self.targets), Now()))
        self.idle = True


def numbers_of(film: Tensor | None, span: Span, role: str) -> Any:
    """Return what a place is changed by: gains and shifts [B, C] of a norm, shifts [B, N] of the others."""
    assert film is not None
    shifts = film[:, span.shift]
    if role in (SHIFT, TABLE):
        return shifts
    return film[:, span.gain] + 1, shifts if shifts.shape[1] else None


def as_channels(values: Tensor, output: Tensor, axis: int) -> Tensor:
    """Shape values [B, C] so that they multiply an output [B * k, ...] with its channels at an axis."""
    values = values if len(values) == 1 or output.shape[0] == 1 else rows_like(values, output)
    shape = [len(values), *(1,) * (output.dim() - 1)]
    shape[axis] = values.shape[1]
    return values.reshape(shape).to(output)


def channels(module: nn.Module, output: Tensor, count: int) -> int:
    """Return the axis of a norm's channels: the last, or the second of pictures."""
    second = "GroupNorm" in type(module).__name__ or output.shape[-1] != count
    return 1 if second else output.dim() - 1


def affine(target: Target, now: Now) -> Any:
    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if target.modulation is None:
            return None
        gains, shifts = target.modulation
        _, first = batch_first(output, output, now.rows)
        axis = channels(module, first, gains.shape[1])
        gains = as_channels(gains, first, axis)
        changed = first * gains if shifts is None else torch.addcmul(as_channels(shifts, first, axis), first, gains)
        return changed if first is output else changed.transpose(0, 1)

    return change


def shift(target: Target) -> Any:
    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if target.modulation is None:
            return None
        return output + as_channels(target.modulation, output, output.dim() - 1)

    return change


def table(target: Target, names: tuple[str, ...], shape: tuple[int, int]) -> Any:
    def before(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        if target.modulation is None:
            return None
        given = dict(zip(names, args, strict=False)) | kwargs
        name = modulation_among(given, shape)
        value = given[name]
        rows = target.modulation if value.shape[0] == 1 else rows_like(target.modulation, value)
        changed = value + rows.reshape(len(rows), *laid_out(value, shape)).to(value)
        if name in kwargs:
            return args, {**kwargs, name: changed}
        place = names.index(name)
        return (*args[:place], changed, *args[place + 1 :]), kwargs

    return before


def laid_out(value: Any, shape: tuple[int, int]) -> tuple[int, ...]:
    """Return how a modulation of k times D numbers lies in an argument [B, ...], or nothing where there is none.

    As [..., k * D], [..., k, D], or [k, T, D] with one for each token or frame.
    """
    if not isinstance(value, Tensor) or value.dim() < 2:
        return ()
    if value.shape[-1] == shape[0] * shape[1]:
        return (*(1,) * (value.dim() - 2), value.shape[-1])
    if value.dim() > 2 and value.shape[-2:] == shape:
        return (*(1,) * (value.dim() - 3), *shape)
    return (shape[0], 1, shape[1]) if value.dim() == 4 and value.shape[1::2] == shape else ()


def modulation_among(given: dict[str, Any], shape: tuple[int, int]) -> str:
    """Return which of a block's arguments its table [k, D] is added to. Raises ModelError where none is."""
    fits = [name for name, value in given.items() if laid_out(value, shape)]
    named = [name for name in fits if "emb" in name or "time" in name] or fits
    if not named:
        raise ModelError(f"a block is given no modulation of {shape[0]} times {shape[1]} numbers; name other layers")
    return named[-1]


def at(output: Tensor, target: Target, now: Now) -> tuple[Any, ...]:
    """Return what a layer is told, on the device of what it changes."""
    return tuple(value.to(output.device) for value in (target.modulation, now.strength, now.tokens))  # pyright: ignore[reportOptionalMemberAccess]


def reader(target: Target, layer: Layer, now: Now) -> Any:
    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if target.modulation is None:
            return None
        other = read_negative(module, args, kwargs, now.negative)
        if other is None:
            return None
        return layer(output - other, output, *at(output, target, now))

    return change


def residual(target: Target, layer: Layer, now: Now, attends: bool) -> Any:
    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
        if target.modulation is None:
            return None  # a ControlNet that shares this layer calls it, not the denoiser
        inputs = args[0] if args else kwargs["hidden_states"]
        # joint attention answers with both streams: the first is the picture's
        first = output[0] if isinstance(output, tuple) else output
        if hasattr(module, "_diffusers_hook"):
            first = first.clone()  # a cache of diffusers may keep it and answer with it again
        inputs = inputs.to(first.device)
        tokens = tokens_of(inputs, first) if attends else batch_first(inputs, first, now.rows)
        changed = layer(*tokens, *at(first, target, now))
        if attends:
            changed = shaped_like(first, inputs, changed)
        elif changed.shape != first.shape:
            changed = changed.transpose(0, 1)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return change


def fusions(denoiser: nn.Module, acts: dict[str, Any]) -> Iterator[Hook]:
    """Yield a hook for every layer that `fuse_qkv_projections` could make of targets."""
    for name in dict.fromkeys(name.rpartition(".")[0] for name in acts):
        parent = denoiser.get_submodule(name)
        for leaf, parts in FUSED.items():
            changes = [acts.get(f"{name}.{part}") for part in parts]
            if any(changes) and all(getattr(parent, part, None) is not None for part in parts):
                widths = [shape_of(parent.get_submodule(part))[1] for part in parts]
                yield Hook(fused_layer(parent, leaf), piecewise(changes, widths))


def fused_layer(parent: nn.Module, leaf: str) -> Find:
    owner = ref(parent)
    return lambda: getattr(owner(), leaf, None)


def piecewise(acts: list[Any], widths: list[int]) -> Any:
    """Return a hook that gives each of the hooks its piece of the output."""

    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        pieces = output.split(widths, dim=-1)
        changed = [act and act(module, args, kwargs, piece) for act, piece in zip(acts, pieces, strict=True)]
        return torch.cat([a if b is None else b for a, b in zip(pieces, changed, strict=True)], dim=-1)

    return change
