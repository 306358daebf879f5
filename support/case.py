"""A pipeline class made of tiny random components, and a short call of it."""

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pipeline that runs in seconds on a CPU, and the arguments of a short run with its guidance on."""

    pipe: Any
    call: dict[str, Any]


def build(name: str) -> Case:
    """Return the case of a pipeline class: the function of its name in the module of its package.

    Raises LookupError where there is none.
    """
    package = package_of(name)
    try:
        module = importlib.import_module(f"support.families.{package.replace('.', '_')}")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("support"):
            raise
        raise LookupError(f"no components for {package}") from error
    maker = getattr(module, name, None)
    if maker is None:
        raise LookupError(f"no components for {name}")
    torch.manual_seed(0)
    case = maker()
    for part in case.pipe.components.values():
        if isinstance(part, nn.Module):
            enliven(part.eval().requires_grad_(False))
    case.pipe.set_progress_bar_config(disable=True)
    return case


def package_of(name: str) -> str:
    """Return the package of `diffusers.pipelines` that a class is in; of one that lacks a library, what it lacks."""
    import diffusers

    kind = getattr(diffusers, name)
    module = kind.__module__
    if ".pipelines." not in module:
        raise LookupError(f"needs {', '.join(getattr(kind, '_backends', ['a library that is not installed']))}")
    return module.split(".pipelines.")[1].rpartition(".")[0]


def enliven(module: nn.Module) -> None:
    """Give zero-initialised weights random values: a network that answers zero would prove nothing."""
    for parameter in module.parameters():
        if parameter.dim() and not parameter.any():
            nn.init.normal_(parameter, std=0.1)
