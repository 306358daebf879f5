"""The cost of a run, told before it is run."""

import pytest
from zoo import pipeline

from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.distillation.cost import recording_cost, training_cost
from guidefold.distillation.states import OnlineStates
from guidefold.trajectories.recorder import Recorder

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car"]
TRAJECTORY = TrajectoryConfig(trajectories=8, sampling_steps=3, keep=2, record_batch=2, shard=4)


def test_recording_costs_two_passes_a_step():
    cost = recording_cost(Recorder(pipeline(), PROMPTS, TRAJECTORY))
    assert cost.teacher_passes == 8 * 3 * 2
    assert cost.store_bytes > 8 * 2 * 3 * 4 * 8 * 8 * 4  # latents and two predictions of each state, in float32
    assert cost.seconds > 0


@pytest.mark.parametrize(("source", "teacher"), [("recorded", 0), ("online", 3 * 2 * 3 * 2)])
def test_only_the_online_source_asks_the_teacher_during_training(source, teacher):
    pipe = pipeline()
    config = TrainConfig(source=source, steps=6, batch_size=4, refresh_every=2, validation=1)
    states = OnlineStates(pipe, PROMPTS, TRAJECTORY, config)
    cost = training_cost(pipe, states, AdapterConfig(rank=2, width=8), config, TRAJECTORY)
    assert (cost.teacher_passes, cost.student_passes) == (teacher, 24)
    assert all(parameter.grad is None for parameter in pipe.unet.parameters())
    assert not pipe.unet._forward_pre_hooks
