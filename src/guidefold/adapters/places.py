"""Where a condition can enter without more work in any layer: the small parameters that a denoiser applies anyway.

A place is named after its module and what is done there: `mid_block.resnets.0.norm1:affine` (scale and shift of a
norm), `norm1.linear:shift` (the bias of what makes an adaptive norm's modulation, or of the time embedding),
`transformer_blocks.0.scale_shift_table:table` (a modulation that is a parameter).
"""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from guidefold.adapters.targets import blocks, is_linear, matching, shape_of, unwrapped
from guidefold.errors import ModelError

AFFINE, GAMMA, SHIFT, TABLE = ":affine", ":gamma", ":shift", ":table"  # gamma: an affine norm that calls it so
ROLES = (AFFINE, GAMMA, SHIFT, TABLE)
MODULATES = re.compile(
    r"norm|modul|mapper|proj_out_1$|\bada|_mod\b|_mod\."
)  # names of what makes an adaptive norm's modulation
TABLES = ("scale_shift_table", "modulation")


@dataclass(frozen=True)
class Slot:
    """A parameter that a place changes: its module's name, its own, and how many numbers it holds."""

    place: str
    module: str
    parameter: str
    size: int


def role_of(target: str) -> str:
    """Return which role a target is named with, or nothing for a layer of the other designs."""
    return next((role for role in ROLES if target.endswith(role)), "")


def is_place(target: str) -> bool:
    return bool(role_of(target))


def slots(place: str, shape: tuple[int, ...]) -> list[Slot]:
    """Return the parameters of a place: a norm's weight, and bias if it has one; a bias; a table."""
    name, role = place.rsplit(":", 1)
    if f":{role}" == TABLE:
        module, _, parameter = name.rpartition(".")
        return [Slot(place, module, parameter, shape[0])]
    kinds = {AFFINE: ("weight", "bias"), GAMMA: ("gamma",)}.get(f":{role}", ("bias",))
    return [Slot(place, name, kind, size) for kind, size in zip(kinds, shape, strict=False)]


def layer_of(denoiser: nn.Module, place: str) -> nn.Module:
    """Return the module of a place, whose output or input carries the change where rows differ."""
    name, role = place.rsplit(":", 1)
    return denoiser.get_submodule(name.rpartition(".")[0] if f":{role}" == TABLE else name)


def place_shape(denoiser: nn.Module, place: str) -> tuple[int, ...]:
    """Return the sizes of a place's parameters. Raises AttributeError where the denoiser has no such place."""
    name, role = place.rsplit(":", 1)
    if f":{role}" == TABLE:
        return (getattr(layer_of(denoiser, place), name.rpartition(".")[2]).numel(),)
    module = unwrapped(denoiser.get_submodule(name))
    if f":{role}" == SHIFT:
        return (shape_of(module)[1],)
    if f":{role}" == GAMMA:
        return (module.get_parameter("gamma").numel(),)
    return tuple(value.numel() for value in (module.weight, getattr(module, "bias", None)) if value is not None)  # pyright: ignore[reportCallIssue]


def find_places(denoiser: nn.Module, target_modules: Iterable[str] | None) -> dict[str, tuple[int, ...]]:
    """Return every place of a denoiser with its shape, or those of named modules. Raises ModelError if none."""
    names = {place: place.rsplit(":", 1)[0] for place in candidates(denoiser)}
    wanted = names.values() if target_modules is None else matching(list(names.values()), tuple(target_modules))
    found = {place: place_shape(denoiser, place) for place, name in names.items() if name in wanted}
    if not found and target_modules is None:
        raise ModelError(f"{type(denoiser).__name__} has no norms, modulations or time embedding to adapt")
    return found


def candidates(denoiser: nn.Module) -> Iterator[str]:
    """Return the names of all places, in the denoiser's order."""
    inside, wrapped = tuple(blocks(denoiser)), ""
    for name, module in denoiser.named_modules():
        if not name or (wrapped and name.startswith(wrapped)):
            continue
        wrapped = f"{name}." if unwrapped(module) is not module else ""  # what LoRA has put around a layer
        if role := norm_role(unwrapped(module)):
            yield f"{name}{role}"
        elif is_shift(name, module, inside):
            yield f"{name}{SHIFT}"
        if name in inside:
            for leaf, value in module.named_parameters(recurse=False):
                if leaf in TABLES and value.shape[-1] > value.numel() // value.shape[-1] > 1:
                    yield f"{name}.{leaf}{TABLE}"


def norm_role(module: nn.Module) -> str:
    """Return the role of a group, layer or RMS norm of any library with a scale of its own, or nothing."""
    if "Norm" not in type(module).__name__ or counts_from_one(type(module)):
        return ""
    for name, role in (("weight", AFFINE), ("gamma", GAMMA)):
        value = getattr(module, name, None)
        if isinstance(value, nn.Parameter) and value.dim() == 1:
            return role
    return ""


@lru_cache(maxsize=64)
def counts_from_one(kind: type) -> bool:
    """Tell whether a kind of norm keeps its scale less 1, so that a share of what it keeps is none of its scale."""
    try:
        return (
            re.search(r"1(\.0)?\s*\+\s*self\.weight|self\.weight\s*\+\s*1", inspect.getsource(kind.forward)) is not None
        )
    except (OSError, TypeError):  # compiled, or made at run time
        return False


def is_shift(name: str, module: nn.Module, inside: tuple[str, ...]) -> bool:
    """Tell whether a layer makes an adaptive norm's modulation, or is the last of the time embedding."""
    if not is_linear(module) or getattr(unwrapped(module), "bias", None) is None:
        return False
    parent, _, leaf = name.rpartition(".")
    if leaf == "linear_2" and "time" in parent:
        return not any(name.startswith(f"{block}.") for block in inside)
    return MODULATES.search(name) is not None and "embedder" not in name
