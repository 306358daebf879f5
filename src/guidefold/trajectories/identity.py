"""By what a store and a run know again what they were made with."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from guidefold.denoiser import components, denoisers
from guidefold.trajectories.weights import fingerprint as fingerprint


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back, the same in every process.

    Tensors, arrays and pictures become a hash of what they hold, other objects the name of their type.
    """
    return json.loads(json.dumps(dict(values), default=told))


def told(value: Any) -> Any:
    """Return what a header says of an object that JSON does not know."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    held, name = content(value), type(value).__name__
    return name if held is None else f"{name} {hashlib.sha256(held).hexdigest()[:16]}"


def content(value: Any) -> bytes | None:
    """Return all that a tensor, an array or a picture holds, or None for anything else."""
    if isinstance(value, Tensor):
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        flat = dense.cpu().contiguous().flatten()
        return f"{value.dtype}{tuple(value.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    if isinstance(value, Image):
        return f"{value.mode}{value.size}{value.getpalette()}".encode() + value.tobytes()
    return None


def encoders_of(pipe: Any) -> dict[str, str]:
    """Return fingerprints of what turns prompts into conditions, by component."""
    parts = {name: part for name, part in components(pipe).items() if isinstance(part, nn.Module)}
    return {name: fingerprint(part) for name, part in parts.items() if "encoder" in name}


def others_of(pipe: Any, learning: nn.Module) -> dict[str, str]:
    """Return fingerprints of the denoisers besides the one that learns, such as ControlNets, by component."""
    return {name: fingerprint(part) for name, part in denoisers(pipe).items() if part is not learning}


def guider_of(pipe: Any, drawn: Collection[str]) -> dict[str, Any]:
    """Return a pipeline's guider: its class and its settings but those that are drawn for each trajectory."""
    guider = pipe.guider
    settings = {name: getattr(guider, name, value) for name, value in guider.config.items() if name not in drawn}
    known = {name: value for name, value in plain(settings).items() if not name.startswith("_")}
    return {"class": type(guider).__name__, **known}


def scheduler_of(pipe: Any) -> dict[str, Any]:
    """Return a pipeline's scheduler: its class and settings."""
    settings = plain(dict(pipe.scheduler.config))
    known = {name: value for name, value in settings.items() if not name.startswith("_")}
    return {"class": type(pipe.scheduler).__name__, **known}
