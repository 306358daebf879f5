"""One training of a comparison, and how what it has learnt is judged."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig, TrainConfig
from guidefold.denoiser import find_denoiser
from guidefold.distillation.freezing import frozen
from guidefold.distillation.loop import Loop
from guidefold.distillation.student import Student
from guidefold.keeping import Adapter
from judging import Judge
from peers import Peer

WARM, TIMED = 3, 5  # steps before and while the time of one is measured

Learner = AdapterConfig | type[Peer]


class Forgetful(Loop):
    """A loop that leaves nothing on disk: what a benchmark trains is judged and forgotten."""

    def write(self, name: str, recovered: float | None) -> None:
        pass

    def save(self) -> None:
        pass


def settings(options: Any, source: str, seed: int) -> TrainConfig:
    config = TrainConfig(
        source=source,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        ema_decay=0.97,
        validation=8,
        seed=seed,
    )
    return lasting(config, options.steps)


def lasting(config: TrainConfig, steps: int) -> TrainConfig:
    """Return settings for so many steps, with validation at the end alone."""
    return replace(config, steps=steps, validate_every=steps, checkpoint_every=steps)


def build(pipe: Any, spec: ConditionSpec, learner: Learner) -> Adapter | Peer:
    return (
        Adapter.build(find_denoiser(pipe), spec, learner) if isinstance(learner, AdapterConfig) else learner(pipe, spec)
    )


@contextmanager
def learning(pipe: Any, source: Any, learner: Learner, config: TrainConfig) -> Iterator[Loop]:
    """Attach something new to the denoiser for as long as it is trained."""
    torch.manual_seed(config.seed)
    denoiser = find_denoiser(pipe)
    student: Any = Student(denoiser, build(pipe, source.spec, learner), source.static)  # pyright: ignore[reportArgumentType]
    with tempfile.TemporaryDirectory() as folder, frozen(denoiser, gradient_checkpointing=False):
        student.adapter.attach(denoiser)
        if hasattr(source, "adapter"):  # states are made on the fly
            source.adapter = student.adapter
        try:
            yield Forgetful(student, source, config, Path(folder))
        finally:
            student.adapter.detach()


def seconds_per_step(pipe: Any, source: Any, learner: Learner, config: TrainConfig) -> float:
    """Measure a step of a training that is then thrown away."""
    times = []
    with learning(pipe, source, learner, config) as loop:
        for step in range(WARM + TIMED):
            start = time.perf_counter()
            loop.step(step)
            times.append(time.perf_counter() - start)
    return statistics.median(times[WARM:])


def trained(pipe: Any, source: Any, learner: Learner, config: TrainConfig, judge: Judge) -> dict[str, Any]:
    """Train one adapter or peer and judge its predictions."""
    start = time.perf_counter()
    with learning(pipe, source, learner, config) as loop:
        loop.run()
    seconds, adapter = time.perf_counter() - start, loop.adapter
    # the last averaged weights
    return {"parameters": adapter.parameter_count(), **judge(adapter), "training_seconds": round(seconds)}
