"""Whether an adapter fits a denoiser: checked before anything changes."""

from typing import TYPE_CHECKING

from torch import nn

from guidefold.acting.compiling import is_compiled
from guidefold.acting.hooks import acting_on
from guidefold.adapters.readers import READS, module_of
from guidefold.adapters.targets import shape_of
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.keeping.adapter import Adapter


def check(adapter: "Adapter", denoiser: nn.Module) -> None:
    """Raise ModelError unless the adapter can be attached to the denoiser."""
    kind = type(denoiser).__name__
    if adapter.attached:
        raise ModelError("this adapter is attached already; call detach() first")
    if any(map(is_compiled, denoiser.modules())):
        raise ModelError(f"{kind} is compiled, and hooks added now would be ignored; attach first, then torch.compile")
    if acting_on(denoiser):
        raise ModelError(f"{kind} has another adapter attached; detach that one first")
    base = adapter.trained.get("base")
    origin = f"; it was trained on {base}" if base else ""
    for name, shape in adapter.shapes.items():
        try:
            found = shape_of(module_of(denoiser, name))
        except AttributeError as error:
            layer = name.removesuffix(READS)
            raise ModelError(f"this adapter is for another base model: {kind} has no layer {layer}{origin}") from error
        if found != tuple(shape):
            raise ModelError(
                f"this adapter is for another base model: {name} has widths {found} here, "
                f"{tuple(shape)} where it was trained{origin}"
            )
