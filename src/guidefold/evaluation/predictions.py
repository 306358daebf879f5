"""Guidance recovered per prediction, on states of the teacher's trajectories and on the student's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guidefold.adapters import ConditionSpec
from guidefold.adapters.conditions import noisiest
from guidefold.capture.makers import bound
from guidefold.capture.run import as_conditions, parameters_of, run
from guidefold.capture.switch import switch_for
from guidefold.capture.tape import Step, aligned
from guidefold.config import TrajectoryConfig
from guidefold.distillation.student import Student, energies
from guidefold.evaluation.metrics import error_energies, recovered_by
from guidefold.evaluation.sampling import noise
from guidefold.keeping import Adapter
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import States

STATES_KEPT = 8


def on_teacher_states(
    pipe: Any,
    adapter: Adapter,
    prompts: Sequence[str],
    guidance_scales: Sequence[float],
    *,
    steps: int,
    seed: int,
    batch: int,
    **arguments: Any,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return guidance recovered by scale and by timestep where the teacher's guided sampling goes."""
    missed, whole, scales, times = [], [], [], []
    for scale in guidance_scales:
        config = TrajectoryConfig(
            trajectories=len(prompts),
            sampling_steps=steps,
            keep=min(STATES_KEPT, steps),
            scale_min=scale,
            scale_max=scale,
            record_batch=min(batch, len(prompts)),
            seed=seed,
            denoiser=adapter.spec.denoiser,
            negatives=("",) if adapter.spec.negative else None,
        )
        with adapter.disabled():
            recorder = Recorder(pipe, prompts, config, **arguments)
        student = Student(recorder.denoiser, adapter, recorder.static, bound(pipe, recorder.makers))
        for numbers in recorder.batches(range(len(prompts))):
            with adapter.disabled():
                states = recorder.states(numbers)
            above, below = energies(student, states)
            missed.append(above)
            whole.append(below)
            scales += [str(float(scale))] * len(above)
            times += time_names(states, recorder.spec)
    above, below = torch.cat(missed), torch.cat(whole)
    return recovered_by(above, below, scales), dict(
        sorted(recovered_by(above, below, times).items(), key=lambda item: int(item[0]))
    )


def time_names(states: States, spec: ConditionSpec) -> list[str]:
    """Return the timestep of each state as text: the noisiest of its tokens or frames, rounded, of 0 to 1000."""
    timestep = states[f"call.{spec.timestep}"]
    return [str(round(time)) for time in (noisiest(timestep, len(timestep)) * spec.timestep_scale).tolist()]


@torch.no_grad()
def on_own_states(
    pipe: Any,
    adapter: Adapter,
    prompts: Sequence[str],
    guidance_scales: Sequence[float],
    *,
    steps: int,
    seed: int,
    batch: int,
    **arguments: Any,
) -> dict[str, float]:
    """Return guidance recovered by scale where sampling with the attached adapter goes."""
    result = {}
    for scale in guidance_scales:
        parts = [
            own_energies(pipe, adapter, prompts[start : start + batch], scale, steps, seed + start, arguments)
            for start in range(0, len(prompts), batch)
        ]
        missed, whole = (torch.cat(part) for part in zip(*parts, strict=True))
        result |= recovered_by(missed, whole, [str(float(scale))] * len(missed))
    return result


def own_energies(
    pipe: Any,
    adapter: Adapter,
    prompts: Sequence[str],
    scale: float,
    steps: int,
    seed: int,
    arguments: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """Sample with the adapter, ask teacher and bare model at the same states, and return the error energies [N].

    Predictions are compared as the scheduler receives them.
    """
    switch = switch_for(pipe, adapter.spec.offs, anchors=adapter.spec.anchors, guider=adapter.spec.guider)

    def call() -> dict[str, Any]:
        known = {"num_inference_steps": steps, "generator": noise(seed, len(prompts)), "output_type": "latent"}
        known = {name: value for name, value in known.items() if name in parameters_of(pipe)}
        return as_conditions(pipe, prompts) | known | {switch.dials[0].name: scale, **arguments}

    own = run(pipe, call())
    with adapter.disabled():
        teacher = run(pipe, call(), forced=own.steps)
        with switch.without(pipe):
            bare = run(pipe, switch.off(call()), forced=own.steps)
    tapes = [
        [like(step, first) for step, first in zip(tape.steps, own.steps, strict=True)] for tape in (own, teacher, bare)
    ]
    return error_energies(*(torch.cat(received) for received in tapes))


def like(step: Step, own: Step) -> Tensor:
    """Return what a step received, once where a guided run has it for both branches."""
    found = aligned(step.received, own.received)
    return step.received if found is None else found
