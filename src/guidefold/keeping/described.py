"""What an adapter's files say of it, checked before anything is built: they may be a stranger's, or damaged."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from guidefold.adapters.conditions import ConditionSpec
from guidefold.config import LARGEST, AdapterConfig
from guidefold.errors import InputError
from guidefold.texts import visible, visible_in

TARGETS = 20_000  # more than any denoiser has layers
CONDITIONS = 1_000
WIDEST = 2**31

COUNTS = ("steps", "steps_before", "merged")
NUMBERS = ("scale_min", "scale_max", "recovered")
TEXTS = ("base", "base_fingerprint", "source")


@dataclass(frozen=True, kw_only=True)
class Described:
    """An adapter without its weights."""

    config: AdapterConfig
    spec: ConditionSpec
    shapes: dict[str, tuple[int, ...]]
    trained: dict[str, Any]


def described(values: Mapping[str, Any]) -> Described:
    """Return what config.json says. Raises InputError, KeyError or TypeError where it describes no adapter."""
    trained = visible_in(checked_trained(mapping("trained", values["trained"])))
    return Described(
        config=AdapterConfig.from_dict(mapping("adapter", values["adapter"])),
        spec=checked_spec(mapping("spec", values["spec"])),
        shapes=checked_shapes(mapping("shapes", values["shapes"])),
        trained=trained,
    )


def checked_shapes(shapes: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return targets with their widths. Raises InputError for what no denoiser has."""
    if len(shapes) > TARGETS:
        raise InputError(f"it has {len(shapes):,} targets; no denoiser has more than {TARGETS:,}")
    for name, shape in shapes.items():
        check_name("a target", name)
        if not isinstance(shape, (list, tuple)) or not all(is_count(one, 0) for one in shape):
            raise InputError(f"the shape of {name} is {shape!r}; give whole numbers")
    return {name: tuple(shape) for name, shape in shapes.items()}


def checked_spec(spec: dict[str, Any]) -> ConditionSpec:
    """Return a condition spec. Raises InputError for values that would make an adapter nonsense."""
    made = ConditionSpec(**spec)
    for group in ("tokens", "vectors", "labels"):
        widths = mapping(group, getattr(made, group))
        if len(widths) > CONDITIONS:
            raise InputError(f"{group} has {len(widths):,} conditions; no denoiser has more than {CONDITIONS:,}")
        for name, width in widths.items():
            check_name(f"one of {group}", name)
            if not is_count(width, 1):
                raise InputError(f"{name} of {group} is {width!r}; give a whole number of at least 1")
    if not is_number(made.timestep_scale) or made.timestep_scale <= 0:
        raise InputError(f"timestep_scale is {made.timestep_scale!r}; give a positive number")
    for name, off in made.dials:
        check_name("a dial", name)
        if not is_number(off):
            raise InputError(f"the dial {name} is off at {off!r}; give a finite number")
    if not 1 <= len(made.dials) == len(made.offs) <= CONDITIONS:
        raise InputError(f"there are {len(made.dials)} dials of {len(made.offs)} names; give each once")
    if not is_count(made.anchors, 1) or made.anchors > len(made.dials):
        raise InputError(f"anchors is {made.anchors!r}; give a whole number from 1 to {len(made.dials)}")
    for name in ("timestep", "denoiser", "output"):
        if getattr(made, name) is not None or name == "timestep":
            check_name(name, getattr(made, name))
    if not isinstance(made.guider, bool):
        raise InputError(f"guider is {made.guider!r}; give true or false")
    return made


def checked_trained(trained: dict[str, Any]) -> dict[str, Any]:
    """Return what an adapter says of its training. Raises InputError for values of another type."""
    for name in COUNTS:
        if not is_count(trained.get(name, 0), 0, LARGEST):
            raise InputError(f"{name} is {trained[name]!r}; give a whole number")
    for name in NUMBERS:
        value = trained.get(name, 0.0)
        if not is_number(value) and not (name == "recovered" and value is None):
            raise InputError(f"{name} is {value!r}; give a finite number")
    for name in TEXTS:
        if not isinstance(trained.get(name) or "", str):
            raise InputError(f"{name} is {trained[name]!r}; give a text")
    if trained.get("scale_min", 0) > trained.get("scale_max", math.inf):
        raise InputError(f"scale_min is {trained['scale_min']:g}, above scale_max, {trained['scale_max']:g}")
    return trained


def mapping(name: str, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"{name} is {visible(values)[:80]}; give an object")
    return values


def check_name(what: str, name: Any) -> None:
    """Raise InputError unless a name can be one of a layer or an argument, and be shown."""
    if not isinstance(name, str) or not name or visible(name) != name:
        raise InputError(f"{what} is called {visible(name)!r}; give a name")


def is_count(value: Any, least: int, most: int = WIDEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < most


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
