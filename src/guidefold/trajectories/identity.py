"""By what a store and a run know again what they were made with."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from guidefold.denoiser import components


def fingerprint(model: nn.Module) -> str:
    """Return a short hash of a model's weights, by name, shape and a sample of the values of each."""
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, value in sorted(model.state_dict().items()):
        sample = value.detach().reshape(-1)[:: max(1, value.numel() // 64)].float().cpu()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back; objects become the name of their type, the same in every process."""
    return json.loads(json.dumps(dict(values), default=lambda value: type(value).__name__))


def encoders_of(pipe: Any) -> dict[str, str]:
    """Return fingerprints of what turns prompts into conditions, by component."""
    parts = {name: part for name, part in components(pipe).items() if isinstance(part, nn.Module)}
    return {name: fingerprint(part) for name, part in parts.items() if "encoder" in name}


def scheduler_of(pipe: Any) -> dict[str, Any]:
    """Return a pipeline's scheduler: its class and settings."""
    settings = plain(dict(pipe.scheduler.config))
    known = {name: value for name, value in settings.items() if not name.startswith("_")}
    return {"class": type(pipe.scheduler).__name__, **known}
