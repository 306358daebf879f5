"""How an adapter acts in ComfyUI: KSampler's cfg becomes its dial, and the model is called for the prompt alone."""

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import comfy.lora
import comfy.samplers
import torch
from torch import Tensor

from guidefold.acting.foreign import Foreign
from guidefold.adapters.conditions import NEGATIVE
from guidefold.adapters.readers import negative_tokens
from guidefold.adapters.scales import as_scales
from guidefold.errors import ModelError
from guidefold.keeping import Adapter

from .calls import conditions, some_rows, time_of
from .naming import sources_of

ASKED = "guidefold"  # where a call's options say what is asked of the adapter


@dataclass
class Asked:
    """What one call asks of the adapter: the scale, and what the model would be called with for the negative prompt."""

    scale: Tensor
    negative: dict[str, Any]


@dataclass
class Folded:
    """An adapter on a model, from `start` to `stop` of the way from noise to picture; else ComfyUI guides itself."""

    adapter: Adapter
    start: float = 0.0
    stop: float = 1.0
    found: WeakKeyDictionary = field(default_factory=WeakKeyDictionary)

    def on(self, model: Any) -> Foreign:
        """Return the adapter on a ComfyUI model. Raises ModelError where it is for another."""
        native = getattr(model.diffusion_model, "_orig_mod", model.diffusion_model)
        if native not in self.found:
            names = sources_of(self.adapter, native, model.model_config.unet_config)
            self.found[native] = Foreign(self.adapter, native, names)
        return self.found[native]

    def deltas(self, model: Any) -> dict[Any, Any]:
        """Return the adapter's plain low-rank deltas as ComfyUI's patches."""
        names, weights, keys = self.on(model).sources, {}, {}
        layers = dict(zip(self.adapter.layered, self.adapter.layers, strict=True))
        for name in self.adapter.deltas:
            layer = layers[name]
            source = names[f"{name}.weight"]
            key, span = f"diffusion_model.{source.name}", source.span
            keys[name] = key if span is None else (key, (0, *span))
            up = layer.up.detach()
            weights[f"{name}.lora_up.weight"] = up if layer.down.dim() == 2 else up[..., None, None]
            weights[f"{name}.lora_down.weight"] = layer.down.detach()
        return comfy.lora.load_lora(weights, keys) if weights else {}

    def sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Patch the deltas in, as strong as the scale wants them, for one run of a sampler."""
        guider = executor.class_obj
        patches = self.deltas(guider.model_patcher.model)
        strength = torch.as_tensor(max(getattr(guider, "cfg", 1.0) - 1, 0.0)).tanh().item()
        if not patches or not strength:
            return executor(*args, **kwargs)
        if self.start > 0 or self.stop < 1:
            raise ModelError("this adapter has deltas, which act on all steps; set start_percent 0 and stop_percent 1")
        before = guider.model_patcher
        guider.model_patcher = before.clone()
        guider.model_patcher.add_patches(patches, strength)
        try:
            return executor(*args, **kwargs)
        finally:
            guider.model_patcher = before

    def predict(self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict = {}, seed: Any = None) -> Any:  # noqa: B006
        """Ask the adapter for the guider's scale, and the guider for none."""
        guider = executor.class_obj
        if type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise:
            raise ModelError(
                f"{type(guider).__name__} guides in its own way; use KSampler or CFGGuider with an adapter"
            )
        cfg = guider.cfg
        if cfg <= 1 or not self.reaches(guider.inner_model, timestep):
            return executor(x, timestep, model_options, seed)
        trained = tuple(self.adapter.trained.get(name, end) for name, end in (("scale_min", 1), ("scale_max", 1e9)))
        off = next(iter(self.adapter.spec.offs.values()))
        asked = Asked(as_scales(cfg - 1 + off, self.adapter.spec.offs, trained), self.negative(guider))
        options = {**model_options.get("transformer_options", {}), ASKED: asked}
        guider.cfg = 1.0
        try:
            return executor(x, timestep, {**model_options, "transformer_options": options}, seed)
        finally:
            guider.cfg = cfg

    def reaches(self, model: Any, sigma: Tensor) -> bool:
        """Tell whether a step is from `start` to `stop`."""
        first, last = (float(model.model_sampling.percent_to_sigma(percent)) for percent in (self.start, self.stop))
        return float(sigma.max()) <= first and (self.stop >= 1 or float(sigma.max()) > last)

    def negative(self, guider: Any) -> dict[str, Any]:
        """Return what the model would be called with for the negative prompt, if the adapter reads it."""
        if not self.adapter.spec.negative:
            return {}
        conds = guider.conds.get("negative") or []
        if not conds:
            raise ModelError("this adapter reads a negative prompt; connect one, of an empty text if there is none")
        return {name: getattr(value, "cond", None) for name, value in conds[0]["model_conds"].items()}

    def call(
        self, executor: Any, x: Tensor, t: Tensor, c_concat: Any = None, c_crossattn: Any = None, control: Any = None,
        transformer_options: dict = {}, **more: Any,  # noqa: B006
    ) -> Tensor:  # fmt: skip
        """Call the model changed, once for all images that share what the adapter sees."""
        asked = transformer_options.get(ASKED)
        if asked is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **more)
        model, network, spec = executor.class_obj, self.adapter, self.adapter.spec
        acting, rows = self.on(model), len(x)
        device = network.heads.weight.device
        if device != x.device:
            network.to(x.device)
        given = {**more, "c_crossattn": c_crossattn}
        seen = conditions(network.encoder.spec, given)
        if asked.negative:
            negative = conditions(spec, asked.negative, NEGATIVE)
            seen |= {name: value.to(x.device).expand(rows, *value.shape[1:]) for name, value in negative.items()}
        scale, time = asked.scale.to(x.device), time_of(model, t, spec)
        parts = []
        for chosen in alike_rows({**seen, spec.timestep: time}):
            first = {name: value[chosen[:1]] for name, value in {**seen, spec.timestep: time}.items()}
            made = network.modulations(scale, first, torch.float32)
            with acting.changed(made, x.device, negative_tokens(first)):
                whole = len(chosen) == rows
                arguments = [x, t, c_concat, c_crossattn, control, chunks(transformer_options, rows, chosen)]
                named = more if whole else some_rows(more, rows, chosen)
                arguments = arguments if whole else [*some_rows(arguments[:5], rows, chosen), arguments[5]]
                parts.append((chosen, executor(*arguments, **named)))
        if len(parts) == 1:
            return parts[0][1]
        result = torch.empty(rows, *parts[0][1].shape[1:], dtype=parts[0][1].dtype, device=parts[0][1].device)
        for chosen, part in parts:
            result[chosen] = part
        return result


def alike_rows(seen: dict[str, Tensor]) -> list[list[int]]:
    """Return the images' numbers in groups that share all that the adapter sees."""
    every = torch.cat([value.reshape(len(value), -1).float() for value in seen.values()], dim=1)
    if bool((every == every[:1]).all()):
        return [list(range(len(every)))]
    numbers = every.unique(dim=0, return_inverse=True)[1].tolist()
    return [[row for row, number in enumerate(numbers) if number == one] for one in range(max(numbers) + 1)]


def chunks(options: dict, rows: int, chosen: list[int]) -> dict:
    """Return a call's options for some of its images, which lie in as many equal pieces as there are conditionings."""
    if len(chosen) == rows or "cond_or_uncond" not in options:
        return options
    size = rows // len(options["cond_or_uncond"])
    pieces = sorted({row // size for row in chosen})
    lists = [name for name in ("cond_or_uncond", "uuids") if name in options]
    return {**options, **{name: [options[name][piece] for piece in pieces] for name in lists}}
