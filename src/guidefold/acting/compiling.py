"""What an adapter has to know of the compiler, which skips hooks."""

import sys

import torch
import torch._dynamo.config
from torch import nn


def look_for_hooks() -> None:
    """Keep the compiler from running a graph that it made for a model of the same class without an adapter."""
    if torch._dynamo.config.skip_nnmodule_hook_guards:
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        torch.compiler.reset()  # graphs from before do not look


def is_compiled(module: nn.Module) -> bool:
    """Tell whether `module.compile()` or `torch.compile(module)` has been called."""
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


def is_frozen() -> bool:
    """Tell whether the compiler takes weights for constants, which then cannot be written for a call."""
    return bool(getattr(sys.modules.get("torch._inductor.config"), "freezing", False))
