"""Fold classifier-free guidance into one forward pass, so that diffusion models sample twice as fast.

`load(path).attach(pipe)` makes a pipeline's guidance cost one pass a step; `distill(pipe, prompts, output)` makes the
adapter for that; `record` and `train` are its two halves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidefold.acting.guider import AdapterGuidance as AdapterGuidance
    from guidefold.capture import observe as observe
    from guidefold.distillation.run import distill as distill
    from guidefold.distillation.run import record as record
    from guidefold.distillation.run import train as train
    from guidefold.keeping import Adapter as Adapter
    from guidefold.keeping.group import AdapterGroup as AdapterGroup
    from guidefold.keeping.hub import load as load
    from guidefold.keeping.hub import save_pretrained as save_pretrained
    from guidefold.keeping.merging import merge as merge
    from guidefold.publishing import push_to_hub as push_to_hub

__version__ = "0.1.0"

# loaded when first used: `guidefold --help` answers without torch
_PLACES = {
    "Adapter": ("guidefold.keeping", "Adapter"),
    "AdapterGuidance": ("guidefold.acting.guider", "AdapterGuidance"),
    "observe": ("guidefold.capture.observe", "observe"),
    "AdapterGroup": ("guidefold.keeping.group", "AdapterGroup"),
    "load": ("guidefold.keeping.hub", "load"),
    "save_pretrained": ("guidefold.keeping.hub", "save_pretrained"),
    "merge": ("guidefold.keeping.merging", "merge"),
    "push_to_hub": ("guidefold.publishing", "push_to_hub"),
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
