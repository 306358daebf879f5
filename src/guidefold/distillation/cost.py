"""What a run will cost, before it is run: passes, disk, and time from a short trial."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from guidefold.capture.makers import bound
from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import chosen_denoiser
from guidefold.distillation.freezing import frozen, settled
from guidefold.distillation.losses import guidance_loss, guidance_weights
from guidefold.distillation.states import OnlineStates, Source
from guidefold.distillation.student import Student
from guidefold.keeping import Adapter
from guidefold.memory import memory_told
from guidefold.room import execution_device
from guidefold.trajectories.recorder import Recorder


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Denoiser passes per image, bytes on disk and seconds."""

    teacher_passes: int = 0
    student_passes: int = 0
    store_bytes: int = 0
    seconds: float = 0.0


def recording_cost(recorder: Recorder) -> Cost:
    """Return the cost of a recording, from one batch of trial trajectories."""
    config = recorder.config
    start = time.perf_counter()
    trial = recorder.shard(range(min(config.record_batch, config.trajectories)))
    seconds = time.perf_counter() - start
    count = len(trial["trajectory"].unique())
    written = sum(value.numel() * value.element_size() for value in trial.values())
    return Cost(
        teacher_passes=round(config.trajectories * recorder.visits * recorder.passes),
        store_bytes=round(written * config.trajectories / count),
        seconds=seconds * config.trajectories / count,
    )


def training_cost(
    pipe: Any, source: Source, adapter: AdapterConfig, config: TrainConfig, trajectory: TrajectoryConfig
) -> Cost:
    """Return the cost of a training, from trial steps whose gradients are thrown away."""
    denoiser = chosen_denoiser(pipe, source.spec.denoiser)
    device, config = execution_device(denoiser), settled(config, denoiser)
    with memory_told(f"give less than rank {adapter.rank} and width {adapter.width}"):
        trial = Adapter.build(denoiser, source.spec, adapter).to(device)
    start = time.perf_counter()
    states = {name: value.to(device) for name, value in source.batch(0).items()}
    making = time.perf_counter() - start
    student = Student(denoiser, trial.attach(denoiser), source.static, bound(pipe, source.makers))
    try:
        with frozen(denoiser, gradient_checkpointing=bool(config.gradient_checkpointing)), torch.enable_grad():
            for _ in range(2):  # the first step warms up
                start = time.perf_counter()
                weight = guidance_weights(states["energy"])
                guidance_loss(student(states), states["pred_guided"], weight).backward()
    finally:
        trial.detach()
    seconds, teacher = config.steps * (time.perf_counter() - start), 0
    if config.source == "online" and isinstance(source, OnlineStates):
        sets = -(-config.steps // config.refresh_every)
        teacher = round(sets * trajectory.record_batch * source.recorder.visits * source.recorder.passes)
        seconds += sets * making
    return Cost(teacher_passes=teacher, student_passes=config.steps * config.batch_size, seconds=seconds)
