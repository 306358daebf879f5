"""How diffusers' pipelines call their denoiser: by position or name, with tensors in dictionaries, lists and tuples."""

import functools
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from guidefold.answers import by_image
from guidefold.arguments import arguments_of, flatten
from guidefold.errors import ModelError

DENOISERS = ("unet", "transformer", "prior", "decoder")  # the first of these, where there are several
TIMESTEPS = ("timestep", "timesteps", "t", "time_step", "timestep_ratio", "r")
OFF = 1.0  # classifier-free guidance at scale 1 is the conditional prediction


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a denoiser: its tensors by dotted name (`added_cond_kwargs.text_embeds`) and its other arguments."""

    tensors: dict[str, Tensor]
    static: dict[str, Any]
    latents: str
    timestep: str

    @property
    def rows(self) -> int:
        """The batch size: of the latents, or how many there are in a list of them."""
        stem, listed, _ = self.latents.partition(".[")
        if listed:
            items = (name.removeprefix(f"{stem}.[") for name in self.tensors if name.startswith(f"{stem}.["))
            return len({item.partition("]")[0] for item in items})
        return self.tensors[self.latents].shape[0]

    def by_image(
        self, images: int, shared: frozenset[str] = frozenset(), second: frozenset[str] = frozenset()
    ) -> dict[str, Tensor]:
        """Return the tensors with one row [images, ...] per image, under names that say how to undo it.

        `x` has a row per image anyway; `x@each` has several, such as frames; `x@second` has them in its second
        dimension; `x@shared` is the same for all images; `x.[*]` are the items of a list with one per image. `shared`
        names tensors whose first dimension only looks as if it had rows for images: positions, rotary embeddings;
        `second` those of the second dimension. See `for_call`.
        """
        result, stem = {}, self.latents.rpartition(".")[0] if self.latents.endswith("[0]") else None
        if stem and stem.endswith("]"):
            raise ModelError(f"the denoiser's argument {self.latents} is in nested lists, which cannot be recorded yet")
        items: dict[str, list[Tensor]] = {}
        for name, value in self.tensors.items():
            parent, _, leaf = name.rpartition(".")
            count = sum(other.rpartition(".")[0] == parent for other in self.tensors)
            if name == self.timestep and value.numel() == 1:
                result[name] = value.reshape(1).expand(images)
            elif stem and leaf.startswith("[") and count == images:
                items.setdefault(f"{parent}.[*]", []).append(value)
            elif name in shared:
                result[f"{name}@shared"] = value[None].expand(images, *value.shape)
            elif name in second:
                result[f"{name}@second"] = value.movedim(1, 0)
            elif value.dim() and value.shape[0] == images:
                result[name] = value
            elif value.dim() and value.shape[0] > images and value.shape[0] % images == 0:
                result[f"{name}@each"] = value.reshape(images, -1, *value.shape[1:])
            else:
                result[f"{name}@shared"] = value[None].expand(images, *value.shape)
        return result | {name: stacked(name, values) for name, values in items.items()}


def stacked(name: str, values: list[Tensor]) -> Tensor:
    """Stack the items of a list. Raises ModelError where they differ in shape."""
    if len({value.shape for value in values}) > 1:
        shapes = " and ".join(str(tuple(value.shape)) for value in values[:2])
        raise ModelError(
            f"the denoiser's argument {name} has shapes {shapes} for two images; give prompts of one length in tokens"
        )
    return torch.stack(values)


def for_call(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as a denoiser wants them: undo `Call.by_image`. Raises ModelError for unequal shared ones."""
    result = {}
    for name, value in tensors.items():
        plain, _, way = name.partition("@")
        if way == "shared":
            if len(value) > 1 and not bool((value == value[:1]).all()):
                raise ModelError(f"the denoiser's argument {plain} differs between images that share it in one call")
            result[plain] = value[0]
        elif way == "each":
            result[plain] = value.flatten(0, 1)
        elif way == "second":
            result[plain] = value.movedim(0, 1)
        elif plain.endswith(".[*]"):
            result |= {f"{plain[:-2]}{place}]": item for place, item in enumerate(value)}
        else:
            result[plain] = value
    return result


def find_denoiser(pipe: Any) -> nn.Module:
    """Return the network that a pipeline samples with; a bare `nn.Module` is its own denoiser. Raises ModelError."""
    if isinstance(pipe, nn.Module):
        return pipe
    found = denoisers(pipe)
    if not found:
        raise ModelError(f"{type(pipe).__name__} has no denoiser: none of its components is called with a timestep")
    return found[next((name for name in DENOISERS if name in found), next(iter(found)))]


def chosen_denoiser(pipe: Any, name: str | None) -> nn.Module:
    """Return a pipeline's denoiser, by its component's name where guidance runs several. Raises ModelError."""
    if name is None or isinstance(pipe, nn.Module):
        return find_denoiser(pipe)
    found = denoisers(pipe)
    if name not in found:
        raise ModelError(f"{type(pipe).__name__} has no {name}; it has {', '.join(found)}")
    return found[name]


def components(pipe: Any) -> dict[str, Any]:
    """Return the parts of a pipeline by name; those of a plain object are its attributes."""
    return getattr(pipe, "components", None) or dict(getattr(pipe, "__dict__", {}))


def denoisers(pipe: Any) -> dict[str, nn.Module]:
    """Return a pipeline's components that are called with a timestep: its denoisers and ControlNets."""
    found: dict[str, nn.Module] = {}
    for name, part in components(pipe).items():
        kind = type(getattr(part, "_orig_mod", part))  # what torch.compile has wrapped
        if isinstance(part, nn.Module) and timestep_name(argument_names(kind)) and part not in found.values():
            found[name] = part
    return found


@functools.lru_cache(maxsize=64)
def argument_names(denoiser_type: type) -> tuple[str, ...]:
    """Return the names of the arguments that a kind of denoiser takes, in order."""
    return tuple(inspect.signature(denoiser_type.forward).parameters)[1:]


def read_call(denoiser: nn.Module, args: tuple, kwargs: dict[str, Any], names: tuple[str, ...] | None = None) -> Call:
    """Read a denoiser's call by its signature; raises ModelError where there is no timestep.

    The compiler cannot look into signatures: what it traces gives the `names` itself.
    """
    names = names or argument_names(type(denoiser))
    given = dict(zip(names, args, strict=False)) | kwargs
    arguments = {name: given.pop(name) for name in names if name in given} | given
    tensors: dict[str, Tensor] = {}
    static: dict[str, Any] = {}
    for name, value in arguments.items():
        flatten(name, value, tensors, static)
    latents = next(iter(tensors))
    timestep = timestep_name(tuple(arguments))
    if timestep is None:
        raise ModelError(f"{type(denoiser).__name__}.forward has no timestep among {', '.join(arguments)}")
    if timestep in static:
        tensors[timestep] = torch.as_tensor(static.pop(timestep), device=tensors[latents].device)
    return Call(tensors=tensors, static=static, latents=latents, timestep=timestep)


def timestep_name(names: tuple[str, ...]) -> str | None:
    """Return which of a denoiser's arguments is the timestep, or None for a network that takes none."""
    known = (name for name in TIMESTEPS if name in names)
    return next(known, None) or next((name for name in names if name.endswith(("_timestep", "_timesteps"))), None)


def prediction_of(output: Any) -> Tensor:
    """Return the tensor in a denoiser's answer, whether a tuple or an output object."""
    return output if isinstance(output, Tensor) else output[0]


def predict(
    denoiser: nn.Module, tensors: dict[str, Tensor], static: dict[str, Any], made: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Call a denoiser as it was called when `tensors` (see `Call.by_image`) and `static` were recorded.

    `made` holds those of its tensors that were not recorded, as it takes them.
    """
    images = next(iter(tensors.values())).shape[0]
    return by_image(denoiser(**arguments_of({**for_call(tensors), **(made or {})}, static)), images)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an instance or a class for a while."""
    own = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def quiet(pipe: Any) -> Iterator[None]:
    """Silence a pipeline's own progress bar."""
    with replaced(pipe, "_progress_bar_config", {**getattr(pipe, "_progress_bar_config", {}), "disable": True}):
        yield


def latents_rows(args: tuple, kwargs: dict[str, Any]) -> int:
    """Return the batch size of a denoiser's call: the rows of its first tensor, the latents."""
    return next(value.shape[0] for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
