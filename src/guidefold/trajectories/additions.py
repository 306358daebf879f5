"""What is added to a model and shapes what it says, beside its own weights: LoRAs, image prompts, words, FreeU.

Files and objects are told by a hash of what they hold, so that a store knows them again in another process.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.denoiser import components, denoisers
from guidefold.trajectories.identity import content, plain

FREE_U = ("s1", "s2", "b1", "b2")


def additions(pipe: Any) -> dict[str, Any]:
    """Return what is added to a pipeline's denoisers and encoders, by component; empty where there is nothing."""
    parts = components(pipe)
    learned = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
    running = denoisers(pipe)
    found = {name: added_to(part) for name, part in learned.items() if name in running or "encoder" in name}
    found |= {name: words(part, learned.get(name.replace("tokenizer", "text_encoder")))
              for name, part in parts.items() if name.startswith("tokenizer")}  # fmt: skip
    return {name: values for name, values in found.items() if values}


def added_to(model: nn.Module) -> dict[str, Any]:
    """Return what is added to one network, in plain values; empty where there is nothing."""
    found: dict[str, Any] = loras(model)
    if processors := dict(weighted_processors(model)):
        found["processors"] = processors
    changed = {name: {key: vars(part)[key] for key in FREE_U} for name, part in model.named_modules() if free_u(part)}
    return plain(found | ({"free_u": changed} if changed else {}))


def free_u(module: nn.Module) -> bool:
    return any(vars(module).get(name) is not None for name in FREE_U) and all(name in vars(module) for name in FREE_U)


def loras(model: nn.Module) -> dict[str, Any]:
    """Return the adapters of PEFT in a network that act on it: weights and scales by name, and what is fused or off."""
    layers = {name: part for name, part in model.named_modules() if hasattr(part, "merged_adapters")}
    fused = sorted({name for layer in layers.values() for name in given(layer, "merged_adapters")})
    names = sorted({name for layer in layers.values() for name in given(layer, "active_adapters")})
    acting = [layer for layer in layers.values() if not getattr(layer, "disable_adapters", False)]
    found: dict[str, Any] = {"fused": fused} if fused else {}
    if layers and not acting:
        return found | {"disabled": names}
    loras = {name: lora(name, {where: part for where, part in layers.items() if part in acting}) for name in names}
    return found | ({"loras": loras} if loras else {})


def given(layer: nn.Module, name: str) -> Iterable[str]:
    value = getattr(layer, name, ())
    return [value] if isinstance(value, str) else value


def lora(name: str, layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Return the scale of an adapter of PEFT, or those it has in several layers, and a hash of its weights."""
    used = {where: layer for where, layer in layers.items() if name in given(layer, "active_adapters")}
    scales = {where: float(scaling(layer)[name]) for where, layer in used.items() if name in scaling(layer)}
    weights = {
        f"{where}.{key}": value
        for where, layer in used.items()
        for key, value in layer.state_dict().items()
        if not key.startswith("base_layer.") and name in key.split(".")
    }
    told: Any = next(iter(scales.values()), None) if len(set(scales.values())) < 2 else scales
    return {"scale": told, "weights": hash_of(weights)}


def scaling(layer: nn.Module) -> Mapping[str, float]:
    found: Any = getattr(layer, "scaling", {})
    return found if isinstance(found, Mapping) else {}


def weighted_processors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield attention processors that have weights or a scale, such as an IP-Adapter's, by the attention's name."""
    for name, module in model.named_modules():
        processor = getattr(module, "processor", None)
        weights = processor.state_dict() if isinstance(processor, nn.Module) else {}
        scale = getattr(processor, "scale", None)
        if weights or isinstance(scale, (int, float, list, tuple)):
            yield name, {"kind": type(processor).__name__, "scale": scale, "weights": hash_of(weights)}


def words(tokenizer: Any, encoder: nn.Module | None) -> dict[str, str]:
    """Return the words that were added to a tokenizer after it was made, with a hash of their embeddings."""
    added = getattr(tokenizer, "get_added_vocab", dict)()
    size = getattr(tokenizer, "vocab_size", None)
    find = getattr(encoder, "get_input_embeddings", None)
    if not isinstance(added, dict) or size is None or find is None:
        return {}
    rows = find().weight
    known = {word: number for word, number in added.items() if size <= number < len(rows)}
    return {word: hash_of({word: rows[number]}) for word, number in sorted(known.items())}


@torch.no_grad()
def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of all that tensors hold; of those without data (offloaded) it is their shape."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        held = str(tuple(value.shape)).encode() if value.is_meta else content(value)
        digest.update(name.encode() + (held or b""))
    return digest.hexdigest()[:16]
