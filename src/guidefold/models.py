"""Load what a command names: a diffusers pipeline, an adapter, a judge; "bundled" is what comes with guidefold."""

from typing import Any

import torch

from guidefold.demo import bundle
from guidefold.errors import InputError, ModelError
from guidefold.evaluation.judge import Judge, inception
from guidefold.hush import hushed
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import BUNDLED, load
from guidefold.processes import own_gpu
from guidefold.texts import reason


def best_device(device: str | None) -> str:
    """Return the device asked for, or the best there is. Raises InputError for one that is not there."""
    if device is None:
        return own_gpu() if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        works = float(torch.ones(2, device=device).sum()) == 2.0  # some exist in name only, such as meta
    except Exception as error:  # whatever the driver of a device raises
        raise InputError(
            f"device {device!r} cannot be used here; leave --device out for {best_device(None)}"
        ) from error
    if not works:
        raise InputError(f"device {device!r} cannot add; leave --device out for {best_device(None)}")
    return device


def load_pipeline(model: str, device: str | None, dtype: str) -> Any:
    """Return a pipeline on its device. Raises ModelError when it cannot be loaded."""
    place, kind = best_device(device), getattr(torch, dtype)
    if model == BUNDLED:
        return bundle.load_teacher(place, kind)
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    try:
        with hushed():  # no pickle, whoever wrote the folder
            return DiffusionPipeline.from_pretrained(model, dtype=kind, use_safetensors=True).to(place)
    except Exception as error:  # what a stranger's folder may break has no end of types
        raise ModelError(
            f"cannot load a pipeline from {model}: {reason(error)}; give a folder of diffusers, or a hub name"
        ) from error


def load_adapter(adapter: str) -> Adapter:
    """Return an adapter, not attached. Raises InputError for several, which belong to one pipeline."""
    found = load(adapter)
    if isinstance(found, AdapterGroup):
        raise InputError(f"{adapter} holds adapters for {', '.join(found.adapters)}; give the folder of one of them")
    return found


def load_judge(model: str) -> Judge:
    """Return the bundled judge for the bundled teacher, Inception features for any other model."""
    return bundle.load_judge() if model == BUNDLED else inception()
