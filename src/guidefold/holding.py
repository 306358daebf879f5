"""Load a diffusers pipeline, or its denoiser alone, and hold its weights where and as they are asked for."""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from guidefold.config import HoldingConfig, ModelConfig
from guidefold.denoiser import DENOISERS, argument_names, denoisers, timestep_name
from guidefold.dressing import dressed, fetched, load_controlnet
from guidefold.errors import InputError, ModelError
from guidefold.hush import hushed

INSTALL = {"bitsandbytes": "quantize", "gguf": "gguf"}  # the extras of guidefold that bring them


def check_holding(holding: HoldingConfig, place: str) -> None:
    """Raise InputError for what is not installed, does not exist or does not go together."""
    if holding.quantize:
        needs("bitsandbytes", f"quantize {holding.quantize}")
        if torch.device(place).type not in ("cuda", "xpu"):
            raise InputError(f"quantize {holding.quantize} needs a GPU, not {place}; leave quantize out")
        if holding.offload == "group":
            raise InputError("quantised weights cannot be offloaded in groups; give offload model, or no quantize")
    if holding.checkpoint:
        path = Path(holding.checkpoint)
        if path.suffix not in (".safetensors", ".gguf"):
            raise InputError(f"checkpoint is {path.name!r}; give one .safetensors or .gguf file")
        if path.suffix == ".gguf":
            needs("gguf", f"the checkpoint {path.name}")
            if holding.quantize:
                raise InputError(f"the checkpoint {path.name} is quantised already; leave quantize out")
        if not path.is_file():
            raise InputError(f"there is no file {path}; give one .safetensors or .gguf file")


def needs(library: str, what: str) -> None:
    """Raise InputError unless a library is installed."""
    if find_spec(library) is None:
        raise InputError(f"{what} needs {library}; pip install 'guidefold[{INSTALL[library]}]'")


def denoiser_classes(model: str) -> dict[str, type[nn.Module]]:
    """Return the classes of a pipeline's denoisers by component, from its index alone."""
    import diffusers
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    config: Any = DiffusionPipeline.load_config(model)
    found = {}
    for name, entry in config.items():
        if not isinstance(entry, (list, tuple)) or entry[0] is None:
            continue
        library, kind = entry
        home = getattr(diffusers.pipelines, library, None) or import_module(library)
        made = getattr(home, kind, None)
        if isinstance(made, type) and issubclass(made, nn.Module) and timestep_name(argument_names(made)):
            found[name] = made
    return found


def main_denoiser(names: Any) -> str:
    """Return which of several denoisers a pipeline is known by."""
    return next((name for name in DENOISERS if name in names), next(iter(names)))


def load_denoiser(model: str, name: str | None, place: str, dtype: torch.dtype, holding: HoldingConfig) -> nn.Module:
    """Return a pipeline's denoiser on its device, and load nothing else of it. Raises InputError or ModelError."""
    with hushed():
        found = denoiser_classes(model)
        if not found or (name is not None and name not in found):
            raise ModelError(f"{model} has no {name or 'denoiser'}; it has {', '.join(found) or 'none'}")
        chosen = name or main_denoiser(found)
        if holding.checkpoint:
            made = from_file(found[chosen], model, chosen, dtype, holding.checkpoint)
        else:
            more = {"quantization_config": packing(holding.quantize, dtype)} if holding.quantize else {}
            made = from_folder(found[chosen], model, chosen, dtype, **more)
    return placed(made, place, holding)


def load_learning(
    model: str,
    name: str | None,
    makers: Sequence[str],
    controlnet: str | None,
    place: str,
    dtype: torch.dtype,
    holding: HoldingConfig,
) -> Any:
    """Return a pipeline's denoiser, or an object that holds it and the components that make its inputs.

    Raises InputError or ModelError.
    """
    denoiser = load_denoiser(model, name, place, dtype, holding)
    if not makers:
        return denoiser
    found = denoiser_classes(model)
    parts = {name or main_denoiser(found): denoiser}
    for maker in makers:
        made, packs = load_maker(found.get(maker), model, maker, controlnet, dtype, holding)
        parts[maker] = placed(made, place, holding if packs else replace(holding, quantize=None))
    return SimpleNamespace(**parts)


def load_maker(
    kind: Any, model: str, name: str, controlnet: str | None, dtype: torch.dtype, holding: HoldingConfig
) -> tuple[nn.Module, bool]:
    """Return what makes inputs of a denoiser, and whether its weights are packed, as in a whole pipeline.

    Raises ModelError where there is none.
    """
    if controlnet is not None:
        return load_controlnet(controlnet, dtype), False
    if kind is None:
        raise ModelError(f"{model} has no {name}, which the store was recorded with; give controlnet")
    if "from_pretrained" in vars(kind):  # several ControlNets in one, whose folders the pipeline knows
        return load_pipeline(model, "cpu", dtype, HoldingConfig(), ModelConfig()).components[name], False
    more = {"quantization_config": packing(holding.quantize, dtype)} if holding.quantize else {}
    with hushed():
        return from_folder(kind, model, name, dtype, **more), bool(holding.quantize)


def placed(network: Any, place: str, holding: HoldingConfig) -> nn.Module:
    """Bring a network to its device, or have its blocks brought there while they run."""
    if holding.offload == "group":
        offload_groups(network, place)
    elif not holding.quantize:
        network.to(place)
    return network


def load_pipeline(model: str, place: str, dtype: torch.dtype, holding: HoldingConfig, dress: ModelConfig) -> Any:
    """Return a pipeline whose weights are held as asked, after what is put on it. Raises InputError or ModelError."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    more: dict[str, Any] = {}
    version = fetched(dress)
    with hushed():
        if holding.checkpoint or holding.quantize:
            found = denoiser_classes(model)
            if not found:
                raise ModelError(f"{model} has no denoiser among its components")
            name = main_denoiser(found)
            if holding.checkpoint:
                more[name] = from_file(found[name], model, name, dtype, holding.checkpoint)
            else:
                packed = {"quantization_config": packing(holding.quantize, dtype)}
                more = {one: from_folder(kind, model, one, dtype, **packed, **version) for one, kind in found.items()}
        pipe = DiffusionPipeline.from_pretrained(model, dtype=dtype, use_safetensors=True, **version, **more)
    return put(dressed(pipe, dress), place, holding)


def put(pipe: Any, place: str, holding: HoldingConfig) -> Any:
    """Bring a pipeline to its device, or have its parts brought there while they run."""
    if holding.offload == "model":
        pipe.enable_model_cpu_offload(device=place)
        return pipe
    if holding.offload is None:
        return pipe.to(place)
    parts = denoisers(pipe)
    for part in parts.values():
        offload_groups(part, place)
    for part in pipe.components.values():
        if isinstance(part, nn.Module) and part not in parts.values():
            part.to(place)
    return pipe


def offload_groups(denoiser: Any, place: str) -> None:
    """Keep a denoiser's blocks on the CPU until they run. Raises ModelError for one that diffusers cannot split."""
    if not hasattr(denoiser, "enable_group_offload"):
        raise ModelError(f"{type(denoiser).__name__} cannot be offloaded in groups; give offload model")
    where, home = torch.device(place), torch.device("cpu")
    more = {"use_stream": True} if where.type == "cuda" else {}
    denoiser.enable_group_offload(where, home, offload_type="block_level", num_blocks_per_group=1, **more)


def packing(kind: str | None, dtype: torch.dtype) -> Any:
    """Return diffusers' settings for weights that bitsandbytes packs."""
    from diffusers.quantizers.quantization_config import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def from_folder(kind: Any, model: str, name: str, dtype: torch.dtype, **more: Any) -> nn.Module:
    """Return one component of a pipeline; no pickle, whoever wrote the folder."""
    return kind.from_pretrained(model, subfolder=name, torch_dtype=dtype, use_safetensors=True, **more)


def from_file(kind: Any, model: str, name: str, dtype: torch.dtype, path: str) -> nn.Module:
    """Return a denoiser with the weights of one file, its shape from the model. Raises ModelError."""
    if not hasattr(kind, "from_single_file"):
        raise ModelError(f"{kind.__name__} cannot be loaded from one file; leave checkpoint out")
    more = {}
    if path.endswith(".gguf"):
        from diffusers.quantizers.quantization_config import GGUFQuantizationConfig

        more["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    return kind.from_single_file(path, config=model, subfolder=name, torch_dtype=dtype, **more)
