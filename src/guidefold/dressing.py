"""What is put on a named model before it teaches or samples: LoRAs, merged into its weights, and a ControlNet."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from guidefold.config import ModelConfig
from guidefold.errors import InputError, ModelError
from guidefold.hush import hushed
from guidefold.texts import reason


def check_dress(dress: ModelConfig) -> None:
    """Raise InputError for LoRAs that cannot be meant: before anything is loaded."""
    for text in dress.lora or ():
        source, scale = lora_of(text)
        if source.endswith((".safetensors", ".bin", ".pt")) and not Path(source).is_file():
            raise InputError(f"lora has {text!r}, but there is no file {source}; give a file, a folder or a Hub name")
        if not source.endswith(".safetensors") and Path(source).is_file():
            raise InputError(f"lora has {text!r}, which is no .safetensors file; pickles are not read")
        if scale == 0:
            raise InputError(f"lora has {text!r}, which at scale 0 does nothing; leave it out")
    if dress.lora and find_spec("peft") is None:
        raise InputError("a LoRA needs peft; pip install 'guidefold[lora]'")


def lora_of(text: str) -> tuple[str, float]:
    """Return where a LoRA is and its scale: PATH or PATH:scale. Raises InputError for one without a place."""
    source, colon, number = text.rpartition(":")
    try:
        found = (source, float(number)) if colon else (text, 1.0)
    except ValueError:  # a colon of the path's own
        found = text, 1.0
    if not found[0] or not abs(found[1]) < float("inf"):
        raise InputError(f"lora has {text!r}; write PATH or PATH:scale")
    return found


def fetched(dress: ModelConfig) -> dict[str, str]:
    """Return which version of a model to fetch, as `from_pretrained` takes it."""
    given = {"revision": dress.revision, "variant": dress.variant}
    return {name: value for name, value in given.items() if value is not None}


def dressed(pipe: Any, dress: ModelConfig) -> Any:
    """Return a pipeline with its LoRAs merged and its ControlNet, which makes it one of another class.

    Raises ModelError for what does not fit.
    """
    if dress.controlnet:
        pipe = controlled(pipe, dress.controlnet)
    if dress.lora:
        merge_loras(pipe, dress.lora)
    return pipe


def controlled(pipe: Any, controlnet: str) -> Any:
    """Return the same model as a pipeline with a ControlNet. Raises ModelError for what does not fit."""
    from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

    parts = (part for part in pipe.components.values() if isinstance(part, torch.nn.Module))
    dtype: Any = getattr(next(parts, None), "dtype", torch.float32)
    network = load_controlnet(controlnet, dtype)
    with usable(controlnet):
        made = AutoPipelineForText2Image.from_pipe(pipe, controlnet=network)
    if "controlnet" not in made.components:
        raise ModelError(f"diffusers has no ControlNet pipeline for {type(pipe).__name__}; leave controlnet out")
    return made


def load_controlnet(controlnet: str, dtype: torch.dtype) -> Any:
    """Return a ControlNet. Raises ModelError for what is none."""
    from diffusers.models.auto_model import AutoModel

    with usable(controlnet):
        return AutoModel.from_pretrained(controlnet, torch_dtype=dtype)


@contextmanager
def usable(controlnet: str) -> Iterator[None]:
    """Raise ModelError in place of what a ControlNet that does not fit raises."""
    try:
        with hushed():
            yield
    except Exception as error:  # what a stranger's file may break has no end of types
        raise ModelError(
            f"cannot use the ControlNet {controlnet} ({reason(error)}); give a folder or a Hub name of one"
        ) from error


def merge_loras(pipe: Any, loras: tuple[str, ...]) -> None:
    """Merge LoRAs into a pipeline's weights, so that the model is a fine-tune like any other. Raises ModelError."""
    if not hasattr(pipe, "load_lora_weights"):
        raise ModelError(f"{type(pipe).__name__} takes no LoRA; leave lora out")
    names = {f"lora{number}": lora_of(text) for number, text in enumerate(loras)}
    for name, (source, _) in names.items():
        try:
            with hushed(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Already found a `peft_config`")  # of a second LoRA
                pipe.load_lora_weights(source, adapter_name=name, use_safetensors=True)
            found = {one for many in pipe.get_list_adapters().values() for one in many}
        except Exception as error:  # what a stranger's file may break has no end of types
            raise ModelError(f"cannot use the LoRA {source} ({reason(error)}); give one of this model") from error
        if name not in found:
            raise ModelError(f"the LoRA {source} changes nothing of {type(pipe).__name__}; give one of this model")
    pipe.set_adapters([*names], [scale for _, scale in names.values()])
    pipe.fuse_lora(adapter_names=[*names])
    pipe.unload_lora_weights()
