"""Memory, computed before a run: near what is measured, and what does not fit is one line with what would."""

import pytest
import torch
from zoo import make, message_of, pipeline

from guidefold.config import AdapterConfig, HoldingConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import read_call
from guidefold.distillation import plan
from guidefold.distillation.memory import bytes_of, held_bytes, packed_bytes, sketch_of_call, student_memory
from guidefold.errors import InputError

SHAPE = AdapterConfig(rank=2, width=8)
PLAIN, LEAN = (TrainConfig(mixed_precision="no", gradient_checkpointing=on, batch_size=8) for on in (False, True))
WHOLE = HoldingConfig()


@pytest.fixture(scope="module")
def sketched():
    denoiser, call = make("sd3")
    return denoiser, sketch_of_call(denoiser, read_call(denoiser, (), call))


def test_a_computed_step_follows_what_is_asked(sketched):
    denoiser, sketch = sketched
    plain, _ = student_memory(denoiser, sketch, SHAPE, PLAIN, WHOLE, 1)
    lean, _ = student_memory(denoiser, sketch, SHAPE, LEAN, WHOLE, 1)
    many, checked = student_memory(denoiser, sketch, SHAPE, PLAIN, WHOLE, 5)
    assert bytes_of(denoiser) < plain.resting == lean.resting < checked.peak <= many.peak
    assert lean.peak <= plain.peak < many.peak < 5 * plain.peak
    packed, _ = student_memory(denoiser, sketch, SHAPE, PLAIN, HoldingConfig(quantize="nf4"), 1)
    assert plain.peak - packed.peak == bytes_of(denoiser) - packed_bytes(denoiser, "nf4") > 0
    assert held_bytes(denoiser, HoldingConfig(offload="group")) < bytes_of(denoiser)
    assert not denoiser._forward_pre_hooks and all(value.grad is None for value in denoiser.parameters())


def test_it_is_near_what_a_step_really_allocates(sketched):
    """The profiler's ledger of the same step on the CPU."""
    from guidefold.distillation.memory import repeated
    from guidefold.distillation.student import Student
    from guidefold.keeping import Adapter

    denoiser, sketch = sketched
    computed, _ = student_memory(denoiser, sketch, SHAPE, PLAIN, WHOLE, 4)
    adapter = Adapter.build(denoiser, sketch.spec, SHAPE)
    student = Student(denoiser, adapter.attach(denoiser), sketch.static)
    states = repeated(sketch.states, 4)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        student(states).square().sum().backward()
    adapter.detach()
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    assert computed.peak - computed.resting == pytest.approx(most, rel=0.25)


@pytest.fixture(scope="module")
def need(sketched):
    """Return what the leanest step needs, and how much less with packed weights."""
    denoiser, sketch = sketched
    step, _ = student_memory(denoiser, sketch, SHAPE, LEAN, WHOLE, 1)
    return step.peak, bytes_of(denoiser) - packed_bytes(denoiser, "nf4")


@pytest.mark.parametrize(
    ("share", "told"),
    [(None, "give a smaller model, or several GPUs with FSDP"), (0.5, "quantize nf4 (0.0 GiB)")],
)
def test_what_does_not_fit_is_told_with_what_would(share, told, sketched, need, monkeypatch):
    limit = 0 if share is None else need[0] - int(share * need[1])
    monkeypatch.setattr(plan, "room_on", lambda place: limit)
    message = message_of(InputError, lambda: plan.training_fit(*sketched, SHAPE, LEAN, WHOLE, "cpu"))
    assert message.startswith("training needs 0.0 GiB, and cpu has 0.0; ") and told in message


def test_fewer_states_at_once_where_not_all_fit(sketched, need, monkeypatch):
    monkeypatch.setattr(plan, "room_on", lambda place: need[0])
    assert plan.training_fit(*sketched, SHAPE, LEAN, WHOLE, "cpu").rows == 1
    given = TrainConfig(mixed_precision="no", gradient_checkpointing=True, batch_size=8, accumulation=1)
    message = message_of(InputError, lambda: plan.training_fit(*sketched, SHAPE, given, WHOLE, "cpu"))
    assert "accumulation 1 computes 8 states at once, and 1 fit on cpu" in message


def test_recording_that_does_not_fit_is_told(monkeypatch):
    pipe, drawn = pipeline(), TrajectoryConfig(trajectories=8, record_batch=4, sampling_steps=2, keep=1)
    arguments = plan.guided_call(pipe, ["a red fox"], drawn, {})
    denoiser, call, _ = plan.first_call(pipe, arguments, None)
    assert denoiser is pipe.unet and call.rows == 8 and not denoiser._forward_pre_hooks
    need = plan.recording_memory(pipe, denoiser, call, WHOLE)
    away = plan.recording_memory(pipe, denoiser, call, HoldingConfig(offload="model"))
    assert away.resting == 0 < away.peak < need.peak
    monkeypatch.setattr(plan, "room_on", lambda place: need.peak - 1)
    told = message_of(InputError, lambda: plan.check_recording(need, "cuda:1", drawn, WHOLE))
    assert told.startswith("recording needs 0.0 GiB, and cuda:1 has 0.0; give record_batch 2 or offload model or quant")
