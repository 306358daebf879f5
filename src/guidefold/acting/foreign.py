"""The folded form in another program's model: the same parameters under other names, in other layouts and places.

For one call every parameter that the adapter changes is replaced by another one; the model's own are not written to.
Programs that move or cast weights as they go keep a list of functions beside them, `weight_function`, as ComfyUI does:
where one is in use, or no parameter can take the place, a function is put there for the call instead.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.acting.names import Source
from guidefold.adapters.film import positions, slots_of
from guidefold.adapters.layers import rows_like
from guidefold.adapters.network import Modulations, Network
from guidefold.adapters.readers import READS, reads
from guidefold.denoiser import replaced
from guidefold.errors import ModelError


@dataclass(frozen=True)
class Place:
    """A parameter of the other model, and where each of its numbers' gain and shift stand among an adapter's [size]."""

    module: nn.Module
    parameter: str
    gains: Tensor
    shifts: Tensor


class Foreign:
    """An adapter on another program's model; constructing changes nothing.

    Raises ModelError where the model has not got what the adapter changes.
    """

    def __init__(self, network: Network, model: nn.Module, sources: Mapping[str, Source]) -> None:
        if network.film is None:
            other = "write it as a LoRA file with guidefold export" if network.deltas else "train one of film"
            raise ModelError(f"an adapter of design {network.config.design} acts in diffusers only; {other}")
        self.network, self.model, self.sources = network, model, sources
        self.indices: dict[tuple, tuple[Tensor, Tensor]] = {}
        spans, nothing = network.film.spans, network.film.head.out_features
        self.places = []
        for slot in slots_of(network.shapes):
            name = f"{slot.module}.{slot.parameter}" if slot.module else slot.parameter
            module, leaf, order = self.find(sources, name, (slot.size,))
            standing = [ordered(part, order, nothing) for part in positions(slot, spans[slot.place], nothing)]
            self.places.append(Place(module, leaf, *standing))
        # the readers are the first layers; an attention is where its queries are made
        names = [name.removesuffix(READS) for name in network.layered if reads(name)]
        self.readers = [self.attention(sources, name) for name in names]
        self.last = None
        if network.spec.output in network.shapes:
            shape = network.shapes[network.spec.output]
            self.last = self.find(sources, f"{network.spec.output}.weight", (shape[1], shape[0], *shape[2:3] * 2))

    def find(
        self, sources: Mapping[str, Source], name: str, shape: tuple[int, ...]
    ) -> tuple[nn.Module, str, Tensor | None]:
        """Return the module, the name in it and the order of a parameter's rows. Raises ModelError."""
        kind, base = type(self.model).__name__, self.network.trained.get("base")
        origin = f"; it was trained on {base}" if base else ""
        source = sources.get(name)
        if source is None:
            raise ModelError(f"this adapter is for another base model: {kind} has no {name}{origin}")
        path, _, leaf = source.name.rpartition(".")
        module = self.model.get_submodule(path)
        rows = getattr(module, leaf).shape
        count = shape[0] if source.order is None else int((source.order >= 0).sum())
        size = rows.numel() if source.order is None else count * rows[1:].numel()
        if size != torch.Size(shape).numel():
            raise ModelError(
                f"this adapter is for another base model: {name} has {size} numbers here, "
                f"{torch.Size(shape).numel()} where it was trained{origin}"
            )
        return module, leaf, source.order

    def attention(self, sources: Mapping[str, Source], name: str) -> nn.Module:
        """Return the attention that a reader is for. Raises ModelError where the model has none that stands alone."""
        source = sources.get(f"{name}.to_q.weight")
        path = source.name.rpartition(".")[0].rpartition(".")[0] if source else ""
        if not path or not hasattr(self.model.get_submodule(path), "to_k"):
            raise ModelError(f"this adapter is for another base model: {type(self.model).__name__} has no {name}")
        return self.model.get_submodule(path)

    @contextmanager
    def changed(
        self, made: Modulations, device: torch.device, negative: dict[str, Tensor] | None = None
    ) -> Iterator[None]:
        """Change the model's parameters by the first row of modulations, for a while, on the device that computes.

        `negative` is what `negative_tokens` gives, for the attentions that read a negative prompt.
        """
        assert made.film is not None
        numbers = nn.functional.pad(made.film[0].to(device), (0, 1))
        plain: dict[torch.dtype, list[int]] = {}
        with ExitStack() as stack:
            for number, place in enumerate(self.places):
                if is_plain(place.module, place.parameter, device):
                    plain.setdefault(getattr(place.module, place.parameter).dtype, []).append(number)
                else:
                    stack.enter_context(applied(place.module, place.parameter, affine(place, numbers)))
            for chosen in plain.values():
                places = [self.places[number] for number in chosen]
                values = changed_values(places, numbers, *self.standing(tuple(chosen), device))
                for place, value in zip(places, values, strict=True):
                    stack.enter_context(standing_in(place.module, place.parameter, value))
            if self.last is not None:
                stack.enter_context(self.output(made, device))
            for module, layer, part in zip(self.readers, self.network.layers, made.parts, strict=False):
                hook = reading(layer, part, made, negative or {})
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            yield

    def standing(self, chosen: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return where the gains and the shifts of places stand, one after another, where they are needed."""
        if (chosen, device) not in self.indices:
            places = [self.places[number] for number in chosen]
            gains, shifts = (torch.cat([getattr(place, name) for place in places]) for name in ("gains", "shifts"))
            self.indices = {(chosen, device): (gains.to(device), shifts.to(device))}
        return self.indices[chosen, device]

    def output(self, made: Modulations, device: torch.device) -> Any:
        """Return a context in which the output layer's weight has its update."""
        assert self.last is not None
        module, leaf, order = self.last
        layer: Any = self.network.layers[-1]
        update = layer.folded(made.parts[-1][0].float()).to(device)
        if order is not None:
            update = torch.cat([update, torch.zeros_like(update[:1])])[order]
        if not is_plain(module, leaf, device):
            return applied(module, leaf, lambda weight: weight + update.to(weight).view(weight.shape))
        weight = getattr(module, leaf).to(device)
        return standing_in(module, leaf, weight + update.to(weight.dtype).view(weight.shape))


def ordered(standing: Tensor, order: Tensor | None, nothing: int) -> Tensor:
    """Return where the numbers of another model's parameter stand, of where ours do; `nothing` for those of others."""
    if order is None:
        return standing
    size = len(standing) // int((order >= 0).sum())
    rows = torch.cat([standing.view(-1, size), torch.full((1, size), nothing)])
    return rows[order].flatten()


def is_plain(module: nn.Module, parameter: str, device: torch.device) -> bool:
    """Tell whether another parameter can stand in: nothing is done to this one on its way to the layer."""
    value, functions = getattr(module, parameter), getattr(module, f"{parameter}_function", None)
    if type(value) not in (nn.Parameter, Tensor) or not value.is_floating_point() or value.dtype.itemsize < 2:
        return False
    if functions is None:
        return True  # of no layer that casts
    if functions or getattr(module, f"{parameter}_lowvram_function", None) or hasattr(module, "_v"):
        return False  # patched or, as `_v` marks it, paged in when the layer is called
    return all(own.device == device for own in module.parameters(recurse=False))


def changed_values(places: list[Place], numbers: Tensor, gains: Tensor, shifts: Tensor) -> list[Tensor]:
    """Return what parameters of one dtype become, in a handful of operations for all of them."""
    values = [getattr(place.module, place.parameter).detach() for place in places]
    base = torch.cat([value.to(numbers.device, non_blocking=True).flatten() for value in values])
    changed = (torch.addcmul(base, base, numbers[gains]) + numbers[shifts]).to(base.dtype)
    parts = changed.split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]


def affine(place: Place, numbers: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the function that changes a parameter wherever it has been brought."""
    gains, shifts = (numbers[index.to(numbers.device)] for index in (place.gains, place.shifts))

    def change(value: Tensor) -> Tensor:
        gain, shift = (part.to(value.device).view(value.shape) for part in (gains, shifts))
        return (torch.addcmul(value, value, gain) + shift).to(value.dtype)

    return change


def reading(layer: nn.Module, part: Tensor, made: Modulations, negative: dict[str, Tensor]) -> Any:
    """Return a hook for an attention that reads the negative prompt once more, as its `context`."""

    def change(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if kwargs.get("context") is None or not negative:
            return None
        tokens = rows_like(negative["tokens"], output).to(output.dtype)
        other = module.forward(*args, **{**kwargs, "context": tokens, "value": None})
        return layer(output - other, output, part, made.strength, made.tokens)

    return change


@contextmanager
def standing_in(module: nn.Module, parameter: str, value: Tensor) -> Iterator[None]:
    """Put another value in a parameter's place for a while; the parameter itself is left alone."""
    before = module._parameters[parameter]
    module._parameters[parameter] = nn.Parameter(value, requires_grad=False)
    try:
        yield
    finally:
        module._parameters[parameter] = before


def applied(module: nn.Module, parameter: str, change: Callable[[Tensor], Tensor]) -> Any:
    """Have a function applied to a parameter whenever the layer is called, for a while. Raises ModelError."""
    name = f"{parameter}_function"
    if not hasattr(module, name):
        raise ModelError(f"a {type(module).__name__} keeps its {parameter} in a way that no adapter can change")
    return replaced(module, name, [*getattr(module, name), change])
