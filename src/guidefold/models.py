"""Load what a command names: a diffusers pipeline, an adapter, a judge; those called bundled come with guidefold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError

from guidefold.capture.run import check_arguments
from guidefold.capture.switch import first_dial, has_guider
from guidefold.config import HoldingConfig, ModelConfig
from guidefold.demo import bundle
from guidefold.distillation.freezing import has_bf16
from guidefold.distillation.sharding import is_asked
from guidefold.dressing import check_dress, fetched
from guidefold.errors import GuidefoldError, InputError, ModelError
from guidefold.evaluation.judge import Judge, inception
from guidefold.evaluation.media import Kind
from guidefold.holding import check_holding, load_learning
from guidefold.holding import load_pipeline as pipeline_of
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import load
from guidefold.memory import memory_told
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


def best_dtype(dtype: str | None, place: str) -> torch.dtype:
    """Return the precision asked for, or bfloat16 on GPUs that have it and float32 elsewhere."""
    return getattr(torch, dtype or ("bfloat16" if has_bf16(torch.device(place).type) else "float32"))


def pipeline(
    model: str,
    device: str | None,
    dtype: str | None,
    call: dict[str, Any],
    holding: HoldingConfig | None = None,
    dress: ModelConfig | None = None,
) -> Any:
    """Load a pipeline whose call takes these arguments, none of which is its scale. Raises InputError or ModelError."""
    pipe = load_pipeline(model, device, dtype, holding, dress)
    check_arguments(pipe, call, () if has_guider(pipe) else (first_dial(pipe),))
    return pipe


def load_pipeline(
    model: str,
    device: str | None,
    dtype: str | None,
    holding: HoldingConfig | None = None,
    dress: ModelConfig | None = None,
) -> Any:
    """Return a pipeline on its device, its weights held as asked, with what is put on it.

    Raises InputError or ModelError.
    """
    place, holding, dress = best_device(device), holding or HoldingConfig(), dress or ModelConfig()
    kind = best_dtype(dtype, place)
    check_holding(holding, place)
    check_dress(dress)
    if model in bundle.FOLDERS and fetched(dress):
        raise InputError(f"{model} is there in one form alone; leave {next(iter(fetched(dress)))} out")
    if model in bundle.FOLDERS and holding == HoldingConfig() and dress == ModelConfig():
        return bundle.load_teacher(place, kind, model)
    with loading(model):
        return pipeline_of(str(bundle.FOLDERS.get(model, model)), place, kind, holding, dress)


def load_denoiser(
    model: str,
    device: str | None,
    dtype: str | None,
    name: str | None,
    holding: HoldingConfig | None = None,
    makers: Sequence[str] = (),
    controlnet: str | None = None,
) -> Any:
    """Return a pipeline's denoiser alone, or with what makes its inputs: all that training from a store needs.

    Raises as `load_pipeline`.
    """
    # where weights are shared out, each process takes its part from the CPU
    place = "cpu" if device is None and is_asked() else best_device(device)
    holding = holding or HoldingConfig()
    check_holding(holding, place)
    with loading(model):
        folder = str(bundle.FOLDERS.get(model, model))
        return load_learning(folder, name, makers, controlnet, place, best_dtype(dtype, place), holding)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Raise ModelError, or InputError where there is no room, in place of what loading a model raises."""
    try:
        with memory_told("give offload group, quantize nf4, or a device with more memory"):
            yield
    except GuidefoldError:
        raise
    except Exception as error:  # what a stranger's folder may break has no end of types
        closed = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        advice = "log in with `hf auth login`" if closed else "give a folder of diffusers, or a hub name"
        raise ModelError(f"cannot load a pipeline from {model}: {reason(error)}; {advice}") from error


def load_adapter(adapter: str, model: str = bundle.UNET) -> Adapter:
    """Return an adapter, not attached; `bundled` is a bundled model's own.

    Raises InputError for several, which belong to one pipeline.
    """
    own = adapter == bundle.UNET and model in bundle.FOLDERS
    found = load(model if own else adapter)
    if isinstance(found, AdapterGroup):
        raise InputError(f"{adapter} holds adapters for {', '.join(found.adapters)}; give the folder of one of them")
    return found


def load_judge(model: str, kind: Kind | None) -> Judge | None:
    """Return a bundled teacher's own judge, else Inception features of pictures and of films' frames.

    None for sounds, and where torch-fidelity is not installed, which is told.
    """
    if model in bundle.FOLDERS:
        return bundle.load_judge(model)
    if kind == "audios":
        return None
    if find_spec("torch_fidelity") is None:
        say("without features, which need torch-fidelity: pip install 'guidefold[inception]'")
        return None
    return inception()
