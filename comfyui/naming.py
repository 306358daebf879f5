"""Which parameter of a ComfyUI model is which of diffusers': asked of ComfyUI itself, and of diffusers' converters."""

from collections.abc import Iterator

import comfy.utils
from torch import nn

from guidefold.acting.names import Source, alike, converters, first_of, mapped, traced
from guidefold.adapters.film import slots_of
from guidefold.keeping import Adapter


def sources_of(adapter: Adapter, native: nn.Module, unet_config: dict) -> dict[str, Source]:
    """Return the model's parameters by diffusers' names; those that the adapter wants, if there is a way to know."""
    slots = [f"{slot.module}.{slot.parameter}".removeprefix(".") for slot in slots_of(adapter.shapes)]
    layers = [f"{name.removesuffix(':negative')}.weight" for name in adapter.layered if ":" not in name]
    return first_of(candidates(native, unet_config), [*slots, *layers])[0]


def candidates(native: nn.Module, unet_config: dict) -> Iterator[dict[str, Source]]:
    """Return every way to name a model's parameters as diffusers does; most fit other models."""
    shapes = {name: tuple(value.shape) for name, value in native.state_dict().items()}
    yield alike(shapes)
    for name, function in vars(comfy.utils).items():
        if name.endswith("_to_diffusers"):
            yield from attempt(lambda function=function: mapped(shapes, function(unet_config)))
    for convert in converters():
        yield from attempt(lambda convert=convert: traced(shapes, convert))


def attempt(naming) -> Iterator[dict[str, Source]]:
    """Return what a converter makes of a model, unless it was written for another and fails."""
    try:
        found = naming()
    except Exception:  # whatever it stumbles over in a model that it does not know
        return
    yield found
