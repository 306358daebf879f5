"""How diffusers' pipelines call their denoiser: found by observation, never by a pipeline's name.

A pipeline tells its scheduler what guidance decided. So a guided run is watched at `scheduler.step`, and the student's
inputs are what the same pipeline, with guidance off and answered with those guided predictions, calls its
denoiser with.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from guidefold.errors import ModelError

DENOISERS = ("unet", "transformer", "prior")
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
        return self.tensors[self.latents].shape[0]

    def batched(self) -> dict[str, Tensor]:
        """Return the tensors with one row per image; raises ModelError for one that is shared by the images."""
        rows, result = self.rows, {}
        for name, value in self.tensors.items():
            if name == self.timestep and value.numel() == 1:
                value = value.reshape(1).expand(rows)
            if value.dim() == 0 or value.shape[0] != rows:
                raise ModelError(
                    f"the denoiser's argument {name} has shape {tuple(value.shape)}, not one row per image of {rows}; "
                    "such arguments cannot be recorded yet"
                )
            result[name] = value
        return result


def find_denoiser(pipe: Any) -> nn.Module:
    """Return the network that a pipeline samples with; a bare `nn.Module` is its own denoiser. Raises ModelError."""
    if isinstance(pipe, nn.Module):
        return pipe
    for name in DENOISERS:
        if isinstance(getattr(pipe, name, None), nn.Module):
            return getattr(pipe, name)
    raise ModelError(f"{type(pipe).__name__} has no denoiser; expected a pipeline with one of: {', '.join(DENOISERS)}")


def guidance_argument(pipe: Any) -> str:
    """Return the name of the pipeline's guidance scale, such as `guidance_scale` or `true_cfg_scale`."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    names = [name for name in parameters if name.endswith(("guidance_scale", "cfg_scale"))]
    if len(names) != 1:
        found = f"has {len(names)} guidance arguments ({', '.join(names)})" if names else "has no guidance argument"
        raise ModelError(f"{type(pipe).__name__}.__call__ {found}; pipelines with exactly one are supported")
    return names[0]


def flatten(name: str, value: Any, tensors: dict[str, Tensor], static: dict[str, Any]) -> None:
    """Sort an argument, and what it holds, into tensors and other values."""
    if isinstance(value, Tensor):
        tensors[name] = value
    elif isinstance(value, dict):
        for key, item in value.items():
            flatten(f"{name}.{key}", item, tensors, static)
    else:
        static[name] = value


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
    timestep = next((name for name in ("timestep", "timesteps", "t", "time_step") if name in arguments), None)
    if timestep is None:
        raise ModelError(f"{type(denoiser).__name__}.forward has no timestep among {', '.join(arguments)}")
    if timestep in static:
        tensors[timestep] = torch.as_tensor(static.pop(timestep), device=tensors[latents].device)
    return Call(tensors=tensors, static=static, latents=latents, timestep=timestep)


def arguments_of(tensors: dict[str, Tensor], static: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments with dotted names nested again: the inverse of `read_call`."""
    arguments: dict[str, Any] = {}
    for name, value in {**static, **tensors}.items():
        *parents, leaf = name.split(".")
        place = arguments
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    return arguments


def prediction_of(output: Any) -> Tensor:
    """Return the tensor in a denoiser's answer, whether a tuple or an output object."""
    return output if isinstance(output, Tensor) else output[0]


def predict(denoiser: nn.Module, tensors: dict[str, Tensor], static: dict[str, Any]) -> Tensor:
    """Call a denoiser as it was called when `tensors` and `static` were recorded."""
    return prediction_of(denoiser(**arguments_of(tensors, static)))


@dataclass
class Tape:
    """What happened in one run of a pipeline."""

    calls: list[Call] = field(default_factory=list)
    rows: int = 0
    received: list[Tensor] = field(default_factory=list)


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


@contextmanager
def taped(pipe: Any, *, answers: list[Tensor] | None = None, forced: list[Tensor] | None = None) -> Iterator[Tape]:
    """Watch a run: what the denoiser is called with, and what the scheduler receives.

    With `answers` the denoiser does not compute: its k-th call returns `answers[k]`. With `forced` the k-th step of the
    scheduler goes on from `forced[k]`, so that the run follows another run's trajectory; the tape keeps the original.
    """
    denoiser, tape = find_denoiser(pipe), Tape()
    forward, step = denoiser.forward, type(pipe.scheduler).step

    @functools.wraps(forward)
    def watched_forward(*args: Any, **kwargs: Any) -> Any:
        call = read_call(denoiser, args, kwargs)
        tape.calls.append(Call(**{**vars(call), "tensors": {k: v.detach().clone() for k, v in call.tensors.items()}}))
        tape.rows += call.rows
        if answers is None:
            return forward(*args, **kwargs)
        if len(tape.calls) > len(answers):
            raise ModelError(f"without guidance the denoiser is called more than {len(answers)} times, once per step")
        answer = answers[len(tape.calls) - 1]
        return (answer,) if call.static.get("return_dict") is False else Transformer2DModelOutput(sample=answer)

    @functools.wraps(step)
    def watched_step(self: Any, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        tape.received.append(model_output.detach().clone())
        if forced is not None:
            model_output = forced[len(tape.received) - 1]
        return step(self, model_output, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(quiet(pipe))
        # a class is patched, because some pipelines copy their scheduler
        stack.enter_context(replaced(type(pipe.scheduler), "step", watched_step))
        stack.enter_context(replaced(denoiser, "forward", watched_forward))
        yield tape


def latents_rows(args: tuple, kwargs: dict[str, Any]) -> int:
    """Return the batch size of a denoiser's call: the rows of its first tensor, the latents."""
    return next(value.shape[0] for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
