"""Whether an adapter fits a denoiser: checked before anything changes."""

from typing import TYPE_CHECKING

from torch import nn

from guidefold.acting.attachment import acting_on
from guidefold.acting.compiling import is_compiled
from guidefold.adapters.network import target_shape
from guidefold.errors import ModelError

if TYPE_CHECKING:
    from guidefold.acting.acting import Acting


def check(adapter: "Acting", denoiser: nn.Module) -> None:
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
            found = target_shape(denoiser, name)
        except AttributeError as error:
            layer = name.partition(":")[0]
            raise ModelError(f"this adapter is for another base model: {kind} has no layer {layer}{origin}") from error
        if found != tuple(shape):
            raise ModelError(
                f"this adapter is for another base model: {name} has widths {found} here, "
                f"{tuple(shape)} where it was trained{origin}"
            )
