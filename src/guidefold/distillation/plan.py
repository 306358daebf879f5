"""Whether a run fits on a device, told before anything is loaded onto it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from guidefold.answers import leaves
from guidefold.capture.run import as_conditions
from guidefold.capture.switch import first_dial, has_guider
from guidefold.config import AdapterConfig, HoldingConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import Call, chosen_denoiser, components, denoisers, quiet, read_call
from guidefold.distillation.memory import Memory, Sketch, bytes_of, forward_memory, held_bytes, student_memory
from guidefold.errors import InputError, ModelError
from guidefold.room import forked

GIB = 2**30


class Reached(Exception):
    """The denoiser was called: what comes after is not run."""

    def __init__(self, call: Call) -> None:
        self.call = call


@torch.no_grad()
def first_call(pipe: Any, arguments: dict[str, Any], name: str | None) -> tuple[nn.Module, Call, tuple[nn.Module, ...]]:
    """Return a pipeline's denoiser, what it is first called with, and the networks that made inputs of that call.

    The denoiser itself does not run.
    """
    denoiser = chosen_denoiser(pipe, name)
    others = [one for one in denoisers(pipe).values() if one is not denoiser]
    answers: dict[nn.Module, Any] = {}

    def stop(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        raise Reached(read_call(module, args, kwargs))

    handles = [denoiser.register_forward_pre_hook(stop, with_kwargs=True)]
    handles += [one.register_forward_hook(lambda module, _, answer: answers.update({module: answer})) for one in others]
    try:
        with ExitStack() as stack:
            stack.enter_context(quiet(pipe))
            stack.enter_context(forked(pipe))
            pipe(**arguments)
    except Reached as reached:
        given = {id(value) for value in reached.call.tensors.values()}
        makers = [one for one, answer in answers.items() if given & {id(leaf) for leaf in leaves(answer)}]
        return denoiser, reached.call, tuple(makers)
    finally:
        for handle in handles:
            handle.remove()
    raise ModelError(f"{type(pipe).__name__} never called its denoiser")


def guided_call(pipe: Any, prompts: list[str], config: TrajectoryConfig, call: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a guided run of as many images as are recorded together."""
    count = min(config.record_batch, config.trajectories)
    batch = [prompts[number % len(prompts)] for number in range(count)]
    scale = {} if has_guider(pipe) else {first_dial(pipe): config.scale_max}
    given = {"num_inference_steps": config.sampling_steps, "output_type": "latent", **as_conditions(pipe, batch)}
    return given | scale | call


def recording_memory(pipe: Any, denoiser: nn.Module, call: Call, holding: HoldingConfig) -> Memory:
    """Return what recording needs on the device: the pipeline's weights, or the largest part of it, and one call."""
    parts = {part: bytes_of(part) for part in components(pipe).values() if isinstance(part, nn.Module)}
    parts[denoiser] = held_bytes(denoiser, holding)
    working = forward_memory(denoiser, call)
    if holding.offload == "model":
        return Memory(resting=0, peak=max(parts[denoiser] + working, *parts.values()))
    resting = sum(parts.values())
    return Memory(resting=resting, peak=resting + working)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What training needs, and how many states at once fit."""

    step: Memory
    validation: Memory
    rows: int


def training_fit(
    denoiser: nn.Module, sketch: Sketch, shape: AdapterConfig, config: TrainConfig, holding: HoldingConfig, place: str
) -> Fit:
    """Return how training fits. Raises InputError, with the settings that would, where not one state does."""
    room, wanted = room_on(place), config.batch_size // (config.accumulation or 1)
    step, validation = student_memory(denoiser, sketch, shape, config, holding, 1)
    if step.peak > room:
        raise InputError(
            too_large("training", step.peak, place, smaller(denoiser, sketch, shape, config, holding, room))
        )
    if wanted == 1:
        return Fit(step=step, validation=validation, rows=1)
    two, _ = student_memory(denoiser, sketch, shape, config, holding, 2)
    more = max(1, two.peak - step.peak)  # for every further state
    rows = min(wanted, 1 + (room - step.peak) // more)
    if config.accumulation and rows < wanted:
        raise InputError(
            f"accumulation {config.accumulation} computes {wanted} states at once, and {rows} fit on {place}; "
            "leave it out"
        )
    peak = step.peak + (rows - 1) * more
    return Fit(
        step=replace(step, peak=peak), validation=replace(validation, peak=min(peak, validation.peak * rows)), rows=rows
    )


def smaller(
    denoiser: nn.Module, sketch: Sketch, shape: AdapterConfig, config: TrainConfig, holding: HoldingConfig, room: int
) -> Iterator[str]:
    """Return the settings with which a state would fit, the fastest first."""
    able = getattr(denoiser, "_supports_gradient_checkpointing", False)
    lean = replace(config, gradient_checkpointing=True) if able else config
    tries = [("gradient_checkpointing", holding)] if able and not config.gradient_checkpointing else []
    if holding == HoldingConfig():
        tries += [(f"quantize {kind}", HoldingConfig(quantize=kind)) for kind in ("int8", "nf4")]
        tries += [("offload group", HoldingConfig(offload="group"))] if able else []
    if not tries:
        return
    beside = student_memory(denoiser, sketch, shape, lean, holding, 1)[0].peak - held_bytes(denoiser, holding)
    for told, held in tries:
        peak = beside + held_bytes(denoiser, held)
        if peak <= room:
            yield f"{told} ({peak / GIB:.1f} GiB)"


def check_recording(memory: Memory, place: str, config: TrajectoryConfig, holding: HoldingConfig) -> None:
    """Raise InputError, with what to change, where recording does not fit."""
    if memory.peak > room_on(place):
        ways = [f"record_batch {config.record_batch // 2}"] if config.record_batch > 1 else []
        ways += ["offload model"] if holding.offload is None else []
        ways += ["quantize nf4"] if holding.quantize is None and holding.offload != "group" else []
        raise InputError(too_large("recording", memory.peak, place, iter(ways)))


def too_large(what: str, peak: int, place: str, ways: Iterator[str]) -> str:
    """Say what does not fit where, and what would."""
    found = list(ways)
    advice = f"give {' or '.join(found)}" if found else "give a smaller model, or several GPUs with FSDP"
    return f"{what} needs {peak / GIB:.1f} GiB, and {place} has {room_on(place) / GIB:.1f}; {advice}"


def room_on(place: str) -> int:
    """Return the memory of a device in bytes."""
    device = torch.device(place)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "xpu":
        return torch.xpu.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
