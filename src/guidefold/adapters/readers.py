"""Readers: the base model's own cross-attentions, which read a negative prompt as well as they read a prompt.

A pooled code of a negative prompt says little of pictures, and what it says has to be learnt from few examples. What a
cross-attention would put out if its keys and values came from the negative prompt is known without learning.
"""

from typing import Any

from torch import Tensor, nn

from guidefold.adapters.conditions import NEGATIVE, ConditionSpec, mask_of
from guidefold.adapters.layers import rows_like
from guidefold.adapters.targets import attentions, shape_of

READ = "encoder_hidden_states"  # the name of what is read, for denoisers and attentions of diffusers alike
READS = ":negative"  # what a target is called that is read once more, so that it can be a target of the design too


def find_readers(denoiser: nn.Module, spec: ConditionSpec) -> dict[str, nn.Module]:
    """Return the attentions whose keys are made from the prompt's tokens as the denoiser is given them, by target.

    There are none without negative prompts, and none where tokens are projected or mixed with the picture's first.
    """
    width = spec.tokens.get(f"{NEGATIVE}{READ}")
    found = attentions(denoiser).items() if width else ()
    return {f"{name}{READS}": module for name, module in found if is_reader(module, width or 0)}


def reads(target: str) -> bool:
    """Tell whether a target is a reader."""
    return target.endswith(READS)


def module_of(denoiser: nn.Module, target: str) -> nn.Module:
    """Return the module of a target; raises AttributeError where there is none."""
    return denoiser.get_submodule(target.removesuffix(READS))


def is_reader(module: nn.Module, width: int) -> bool:
    """Tell whether an attention's queries and keys come from different tokens, the keys' of this width."""
    keys = getattr(module, "to_k", None)
    d_in, d_out = shape_of(module)
    if not isinstance(keys, nn.Module) or shape_of(keys)[0] != width or d_in != d_out:
        return False
    return d_in != width or getattr(module, "is_cross_attention", False)


def negative_tokens(conditions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the negative prompt's tokens [B, T, D] and, where there is a mask, what it adds to scores [B, 1, T]."""
    name = f"{NEGATIVE}{READ}"
    tokens = conditions.get(name)
    if tokens is None:
        return {}
    mask = mask_of(name, conditions)
    return (
        {"tokens": tokens} if mask is None else {"tokens": tokens, "bias": (mask.to(tokens.dtype)[:, None] - 1) * 1e4}
    )


def read_negative(module: nn.Module, args: tuple, kwargs: dict[str, Any], negative: dict[str, Tensor]) -> Tensor | None:
    """Return what a reader puts out when it reads the negative prompt instead; None where it reads no prompt now."""
    given, latents = kwargs.get(READ), args[0] if args else kwargs["hidden_states"]
    if given is None or not negative:
        return None
    tokens = rows_like(negative["tokens"], latents).to(latents)
    # an image prompt comes behind the text, and has no negative
    call = {**kwargs, READ: (tokens, *given[1:]) if isinstance(given, tuple) else tokens}
    if "attention_mask" in kwargs:
        bias = negative.get("bias")
        call["attention_mask"] = None if bias is None else rows_like(bias, latents).to(latents)
    return module.forward(*args, **call)
