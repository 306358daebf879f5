"""The nodes: one loads an adapter, the other puts it on a model."""

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import folder_paths
from comfy.patcher_extension import WrappersMP

import guidefold
from guidefold.errors import InputError, ModelError
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup

from .applying import Folded

NAME = "guidefold"
WEIGHTS = "model.safetensors"
HUB = "from the Hub"

if NAME not in folder_paths.folder_names_and_paths:
    folder_paths.add_model_folder_path(NAME, str(Path(folder_paths.models_dir) / NAME))


class LoadAdapter:
    """Load an adapter from `models/guidefold`, each in a folder of its own, or from the Hub."""

    CATEGORY = "guidefold"
    DESCRIPTION = "Load an adapter that folds guidance into one pass, from models/guidefold or from the Hub."
    RETURN_TYPES = ("GUIDEFOLD_ADAPTER",)
    RETURN_NAMES = ("adapter",)
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        files = [name for name in folder_paths.get_filename_list(NAME) if Path(name).name == WEIGHTS]
        hub = "a Hub name such as me/sdxl-folded; read if the adapter is 'from the Hub'"
        part = "which of several adapters, where the file is for several denoisers, such as transformer_2"
        return {
            "required": {"adapter": ([*(str(Path(name).parent) for name in files), HUB],)},
            "optional": {
                "hub_name": ("STRING", {"default": "", "tooltip": hub}),
                "part": ("STRING", {"default": "", "tooltip": part}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, adapter: str, **more: Any) -> float:
        """Load again when the file has changed."""
        path = None if adapter == HUB else folder_paths.get_full_path(NAME, str(Path(adapter) / WEIGHTS))
        return Path(path).stat().st_mtime if path else 0.0

    def load(self, adapter: str, hub_name: str = "", part: str = "") -> tuple[Adapter]:
        if adapter == HUB and not hub_name.strip():
            raise InputError("give the adapter's Hub name, or put its folder in models/guidefold and choose it")
        source = hub_name.strip() if adapter == HUB else self.folder(adapter)
        found = guidefold.load(source)
        if isinstance(found, AdapterGroup):
            if part not in found.adapters:
                raise InputError(f"{source} holds adapters for {', '.join(found.adapters)}; give one of them as part")
            found = found.adapters[part]
        return (found.requires_grad_(False),)

    def folder(self, adapter: str) -> Path:
        path = folder_paths.get_full_path(NAME, str(Path(adapter) / WEIGHTS))
        if path is None:
            raise InputError(f"there is no adapter {adapter} in models/guidefold; choose one that is there")
        return Path(path).parent


class ApplyAdapter:
    """Put an adapter on a model, which is then called once a step; the sampler's cfg is the guidance scale."""

    CATEGORY = "guidefold"
    DESCRIPTION = "Fold guidance into one pass a step. KSampler's cfg stays the dial; at 1 it is the bare model."
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        percent = {"min": 0.0, "max": 1.0, "step": 0.001}
        where = "part of the way from noise to picture where the adapter {}; elsewhere the sampler takes two passes"
        return {
            "required": {
                "model": ("MODEL",),
                "adapter": ("GUIDEFOLD_ADAPTER",),
                "start_percent": ("FLOAT", {"default": 0.0, **percent, "tooltip": where.format("starts")}),
                "stop_percent": ("FLOAT", {"default": 1.0, **percent, "tooltip": where.format("stops")}),
            }
        }

    def apply(self, model: Any, adapter: Adapter, start_percent: float, stop_percent: float) -> tuple[Any]:
        if start_percent >= stop_percent:
            raise InputError(f"start_percent is {start_percent:g}; give less than stop_percent, {stop_percent:g}")
        if model.get_wrappers(WrappersMP.APPLY_MODEL, NAME):
            raise ModelError("this model has a guidefold adapter already; apply one only")
        folded = Folded(adapter, start_percent, stop_percent)
        folded.on(model.model)  # says at once if the adapter is for another model
        patched = model.clone()
        for kind, act in (
            (WrappersMP.OUTER_SAMPLE, folded.sample),
            (WrappersMP.PREDICT_NOISE, folded.predict),
            (WrappersMP.APPLY_MODEL, folded.call),
        ):
            patched.add_wrapper_with_key(kind, NAME, act)
        patched.set_additional_models(NAME, [patcher_of(adapter, model)])
        return (patched,)


def patcher_of(adapter: Adapter, model: Any) -> Any:
    """Return what lets ComfyUI move the adapter with the model, in and out of the GPU's memory."""
    places = {"load_device": model.load_device, "offload_device": model.offload_device}
    return comfy.model_patcher.ModelPatcher(adapter, **places)


NODE_CLASS_MAPPINGS = {"GuidefoldLoadAdapter": LoadAdapter, "GuidefoldApplyAdapter": ApplyAdapter}
NODE_DISPLAY_NAME_MAPPINGS = {
    "GuidefoldLoadAdapter": "Guidefold: load adapter",
    "GuidefoldApplyAdapter": "Guidefold: apply",
}
