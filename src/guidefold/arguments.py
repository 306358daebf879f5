"""Arguments with tensors somewhere in dictionaries, lists and tuples, as flat values by dotted name and back.

A dictionary's item is `x.key`, a list's `x.[0]`, a tuple's `x.(0)`. A key that is no plain word stands in braces as
Python writes it, so that whole numbers, dots and brackets come back as they were: `x.{3}`, `x.{'a%2Eb'}`.
"""

import ast
from typing import Any
from urllib.parse import unquote

from torch import Tensor

from guidefold.errors import ModelError

ESCAPED = {"%": "%25", ".": "%2E", "@": "%40"}  # "%" first; "@" begins what `Call.by_image` adds to a name


def flatten(name: str, value: Any, tensors: dict[str, Tensor], static: dict[str, Any]) -> None:
    """Sort an argument and what it holds into tensors and other values, by dotted name."""
    if isinstance(value, Tensor):
        tensors[name] = value
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            flatten(f"{name}.{named(key)}", item, tensors, static)
    elif isinstance(value, (list, tuple)) and holds_tensors(value):
        left, right = "[]" if isinstance(value, list) else "()"
        for place, item in enumerate(value):
            flatten(f"{name}.{left}{place}{right}", item, tensors, static)
    else:
        static[name] = value


def holds_tensors(value: Any) -> bool:
    """Tell whether there is a tensor somewhere in nested lists, tuples and dictionaries."""
    if isinstance(value, (list, tuple)):
        return any(map(holds_tensors, value))
    return any(map(holds_tensors, value.values())) if isinstance(value, dict) else isinstance(value, Tensor)


def named(key: Any) -> str:
    """Return the part of a dotted name that a dictionary's key becomes."""
    if isinstance(key, str) and key.isidentifier():
        return key
    text = repr(key)
    for character, code in ESCAPED.items():
        text = text.replace(character, code)
    return f"{{{text}}}"


def key_of(part: str) -> Any:
    """Return the key that `named` wrote. Raises ModelError for one that Python cannot read back."""
    if not part.startswith("{"):
        return part
    text = unquote(part[1:-1])
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise ModelError(
            f"a dictionary among the denoiser's arguments has the key {text}, which cannot be recorded; "
            "texts and numbers can"
        ) from error


def arguments_of(tensors: dict[str, Tensor], static: dict[str, Any]) -> dict[str, Any]:
    """Return arguments by name, nested again: the inverse of `flatten`.

    Raises ModelError for keys that cannot be read back.
    """
    arguments: dict[str, Any] = {}
    for name, value in {**static, **tensors}.items():
        *parents, leaf = name.split(".")
        place = arguments
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return {name: listed(value) for name, value in arguments.items()}


def listed(value: Any) -> Any:
    """Return nested dictionaries with their keys, and as lists and tuples where those are `[0]` or `(0)`."""
    if not isinstance(value, dict) or not value:
        return value
    items = {key: listed(item) for key, item in value.items()}
    first = next(iter(items))
    if first[0] not in "[(":
        return {key_of(key): item for key, item in items.items()}
    ordered = [items[key] for key in sorted(items, key=lambda key: int(key[1:-1]))]
    return ordered if first[0] == "[" else tuple(ordered)


def written(value: Any) -> Any:
    """Return an argument without tensors as JSON that `unwritten` reads back exactly: tuples and keys stay apart.

    Raises TypeError for what is neither text, number, truth value, None nor a list, tuple or dictionary of them.
    """
    if isinstance(value, list):
        return [written(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [written(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[written(key), written(item)] for key, item in value.items()]}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(type(value).__name__)


def unwritten(value: Any) -> Any:
    """Return what `written` wrote."""
    if isinstance(value, list):
        return [unwritten(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(unwritten(item) for item in value["tuple"])
    return {unwritten(key): unwritten(item) for key, item in value["dict"]}
