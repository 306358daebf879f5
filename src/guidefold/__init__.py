"""Fold classifier-free guidance into one forward pass, so that diffusion models sample twice as fast.

`load(path).attach(pipe)` makes a pipeline's guidance cost one pass a step; `distill(pipe, prompts, output)` makes the
adapter for that; `record` and `train` are its two halves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidefold.adapters import Adapter as Adapter
    from guidefold.adapters.group import AdapterGroup as AdapterGroup
    from guidefold.adapters.guider import AdapterGuidance as AdapterGuidance
    from guidefold.adapters.hub import load as load
    from guidefold.adapters.hub import push_to_hub as push_to_hub
    from guidefold.adapters.hub import save_pretrained as save_pretrained
    from guidefold.adapters.merging import merge as merge
    from guidefold.capture import observe as observe
    from guidefold.distillation.run import distill as distill
    from guidefold.distillation.run import record as record
    from guidefold.distillation.run import train as train

__version__ = "0.1.0"

# loaded when first used: `guidefold --help` answers without torch
_PLACES = {
    "Adapter": ("guidefold.adapters", "Adapter"),
    "AdapterGuidance": ("guidefold.adapters.guider", "AdapterGuidance"),
    "observe": ("guidefold.capture.observe", "observe"),
    "AdapterGroup": ("guidefold.adapters.group", "AdapterGroup"),
    "load": ("guidefold.adapters.hub", "load"),
    "save_pretrained": ("guidefold.adapters.hub", "save_pretrained"),
    "merge": ("guidefold.adapters.merging", "merge"),
    "push_to_hub": ("guidefold.adapters.hub", "push_to_hub"),
    "distill": ("guidefold.distillation.run", "distill"),
    "record": ("guidefold.distillation.run", "record"),
    "train": ("guidefold.distillation.run", "train"),
}

__all__ = [
    "Adapter", "AdapterGroup", "AdapterGuidance", "__version__", "distill", "load", "merge", "observe", "push_to_hub",
    "record", "save_pretrained", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'guidefold' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
