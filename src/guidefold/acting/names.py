"""Which parameter of another program's model is which of diffusers': found by letting converters move numbered rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Source:
    """Where a parameter of diffusers' lies in another model: its name there, and which of our rows each row there is.

    `order` [rows there] counts along the first dimension; -1 is a row of another parameter. None: all, as they are.
    """

    name: str
    order: Tensor | None = None

    @property
    def span(self) -> tuple[int, int] | None:
        """The first row there and how many, of a parameter that is a piece of another in order; None for a whole one.

        Raises ValueError where the rows are in another order.
        """
        if self.order is None:
            return None
        rows = (self.order >= 0).nonzero().flatten()
        start, length = int(rows[0]), len(rows)
        if not torch.equal(self.order[start : start + length], torch.arange(length)):
            raise ValueError(f"{self.name} has its rows in another order")
        return start, length


def alike(shapes: Shapes) -> dict[str, Source]:
    """Return the names of a model whose parameters have diffusers' names."""
    return {name: Source(name) for name in shapes}


def traced(shapes: Shapes, convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> dict[str, Source]:
    """Return diffusers' names with their sources, by what `convert` makes of another model's weights of these shapes.

    The converter is given weights with one number a row, all different, so that it may split, join and swap rows.
    """
    starts, weights, total = [], {}, 0
    for name, shape in shapes.items():
        rows = shape[0] if shape else 1
        weights[name] = torch.arange(total, total + rows).reshape(rows, *(1,) * (len(shape) - 1))
        starts.append(total)
        total += rows
    names, edges = list(shapes), torch.tensor([*starts, total])
    found = {}
    for ours, moved in convert(dict(weights)).items():
        numbers = moved.flatten()
        if not len(numbers):
            continue
        place = int(torch.searchsorted(edges, numbers[0], right=True)) - 1
        start, end = int(edges[place]), int(edges[place + 1])
        if bool(((numbers >= start) & (numbers < end)).all()):  # joined from several, none can be written for it
            found[ours] = source(names[place], numbers - start, end - start)
    return found


def source(name: str, rows: Tensor, count: int) -> Source:
    """Return a source of our rows, which stand at `rows` of `count`."""
    if torch.equal(rows, torch.arange(count)):
        return Source(name)
    order = torch.full((count,), -1)
    order[rows] = torch.arange(len(rows))
    return Source(name, order)


def mapped(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Source]:
    """Return sources of a map from diffusers' names to another's, as ComfyUI writes them.

    A value is a name, or a tuple of it, a piece (dimension, start, length) or None, and a function that makes the other
    parameter of ours.
    """
    found = {}
    for ours, value in given.items():
        name, piece, *change = value if isinstance(value, tuple) else (value, None)
        if name not in shapes:
            continue
        rows = shapes[name][0] if shapes[name] else 1
        if piece is not None:
            if piece[0] == 0 and piece[1] + piece[2] <= rows:
                found[ours] = source(name, torch.arange(piece[1], piece[1] + piece[2]), rows)
        elif change:
            order = change[0](torch.arange(rows))
            found[ours] = source(name, torch.argsort(order), rows)
        else:
            found[ours] = Source(name)
    return found


def first_of(candidates: Iterable[dict[str, Source]], wanted: Iterable[str]) -> tuple[dict[str, Source], str | None]:
    """Return the first names that hold all wanted, and None; else those that lack least, and a name that they lack."""
    wanted = list(wanted)
    best, lacking = {}, wanted
    for names in candidates:
        missing = [name for name in wanted if name not in names]
        if not missing:
            return names, None
        if len(missing) < len(lacking):
            best, lacking = names, missing
    return best, next(iter(lacking), None)


def converters() -> Iterator[Callable[..., Mapping[str, Tensor]]]:
    """Return diffusers' own converters of single files into its transformers, each once."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    seen: list[Any] = []
    for kind, entry in SINGLE_FILE_LOADABLE_CLASSES.items():
        convert = entry["checkpoint_mapping_fn"]
        if "Transformer" in kind and convert not in seen:
            seen.append(convert)
            yield convert
