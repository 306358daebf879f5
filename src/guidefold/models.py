"""Load what a command names: a diffusers pipeline, an adapter, a judge; "bundled" is what comes with guidefold."""

from importlib.util import find_spec
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError

from guidefold.config import ModelConfig
from guidefold.demo import bundle
from guidefold.dressing import check_dress, dressed, fetched
from guidefold.errors import InputError, ModelError
from guidefold.evaluation.judge import Judge, inception
from guidefold.evaluation.media import Kind
from guidefold.hush import hushed
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import BUNDLED, load
from guidefold.processes import own_gpu
from guidefold.texts import reason
from guidefold.ui import say


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


def load_pipeline(model: str, device: str | None, dtype: str, dress: ModelConfig | None = None) -> Any:
    """Return a pipeline on its device, with what is put on it. Raises InputError or ModelError."""
    place, kind, dress = best_device(device), getattr(torch, dtype), dress or ModelConfig()
    check_dress(dress)
    version = fetched(dress)
    if model == BUNDLED:
        if version:
            raise InputError(f"there is one bundled teacher alone; leave {next(iter(version))} out")
        return dressed(bundle.load_teacher(place, kind), dress).to(place)
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    try:
        with hushed():  # no pickle, whoever wrote the folder
            pipe = DiffusionPipeline.from_pretrained(model, dtype=kind, use_safetensors=True, **version)
    except Exception as error:  # what a stranger's folder may break has no end of types
        closed = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        advice = "log in with `hf auth login`" if closed else "give a folder of diffusers, or a hub name"
        raise ModelError(f"cannot load a pipeline from {model}: {reason(error)}; {advice}") from error
    return dressed(pipe, dress).to(place)


def load_adapter(adapter: str) -> Adapter:
    """Return an adapter, not attached. Raises InputError for several, which belong to one pipeline."""
    found = load(adapter)
    if isinstance(found, AdapterGroup):
        raise InputError(f"{adapter} holds adapters for {', '.join(found.adapters)}; give the folder of one of them")
    return found


def load_judge(model: str, kind: Kind | None) -> Judge | None:
    """Return the bundled judge for the bundled teacher, else Inception features of pictures and of films' frames.

    None for sounds, and where torch-fidelity is not installed, which is told.
    """
    if model == BUNDLED:
        return bundle.load_judge()
    if kind == "audios":
        return None
    if find_spec("torch_fidelity") is None:
        say("without features, which need torch-fidelity: pip install 'guidefold[inception]'")
        return None
    return inception()
