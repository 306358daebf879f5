"""A short name for a model's weights: the same however they are held."""

import hashlib
from typing import Any

from torch import Tensor, nn

from guidefold.errors import ModelError

SAMPLE = 64  # values of each weight that are hashed


def fingerprint(model: nn.Module) -> str:
    """Return a short hash of a model's weights, by name, shape and a sample of the values of each.

    It is of the values the model computes with: the same on every device, offloaded, sharded over processes (all of
    which must ask), packed by quantisation or unpacked again. A copy in another precision has it if its values are the
    same, as where a bfloat16 checkpoint is loaded as float32; rounded weights are another model's. Raises ModelError
    for weights that cannot be read.
    """
    digest = hashlib.sha256(kind_of(model).encode())
    for name, (module, value) in sorted(held(model).items()):
        plain = numbers(name, module, value).detach()  # one at a time: all of them may not fit
        sample = plain.reshape(-1)[:: max(1, plain.numel() // SAMPLE)].float().cpu()
        digest.update(f"{name}{tuple(plain.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def kind_of(model: nn.Module) -> str:
    """Return the name of a model's class, without the one that FSDP puts before it."""
    return next(one.__name__ for one in type(model).__mro__ if not one.__module__.startswith("torch.distributed"))


def held(model: nn.Module) -> dict[str, tuple[nn.Module, Any]]:
    """Return the module and the weight or buffer of each name, without what quantisation saves beside them."""
    found = {}
    for path, module in model.named_modules():
        kept = {name: one for name, one in module._buffers.items() if name not in module._non_persistent_buffers_set}
        for name, value in (kept | module._parameters).items():
            if value is not None:
                found[f"{path}.{name}" if path else name] = module, value
    return found


def numbers(name: str, module: Any, value: Any) -> Tensor:
    """Return a weight as the model computes with it. Raises ModelError for one that is nowhere."""
    if value.is_meta:
        hook = getattr(module, "_hf_hook", None)
        hooks = (hook, *getattr(hook, "hooks", ()))
        maps = (getattr(one, "weights_map", None) for one in hooks)
        weights = next((one for one in maps if one is not None), None)
        if weights is None:
            raise ModelError(f"the weight {name} is on the meta device, which holds no numbers; load the model first")
        value = weights[name.rpartition(".")[2]]
    if hasattr(value, "full_tensor"):  # a part of a weight that several processes share
        value = value.full_tensor()
    kind = type(value).__name__
    if kind == "Params4bit" and value.quant_state is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(value.data, value.quant_state)
    if kind == "Int8Params":
        scales = value.SCB if value.SCB is not None else module.state.SCB
        return value.data.float() * (scales.float() / 127)[:, None]
    if kind == "GGUFParameter":
        from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

        return dequantize_gguf_tensor(value)
    return value.dequantize() if type(value) not in (Tensor, nn.Parameter) and unpacks(value) else value


def unpacks(value: Tensor) -> bool:
    """Tell whether a tensor of a library's own kind knows how to be plain numbers: torchao's, and quantised ones."""
    return value.is_quantized or type(value).__module__.startswith("torchao")
