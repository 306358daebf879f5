"""Schedulers that call the denoiser more often than they take steps: every visit counts, in the states and the cost."""

import pytest
from diffusers import HeunDiscreteScheduler, KDPM2DiscreteScheduler, PNDMScheduler
from zoo import pipeline

from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.distillation.cost import recording_cost, training_cost
from guidefold.distillation.states import OnlineStates
from guidefold.trajectories.recorder import Recorder

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car"]
CONFIG = TrajectoryConfig(trajectories=8, sampling_steps=3, keep=2, record_batch=8, shard=8, scale_max=6.0)
VISITS = {HeunDiscreteScheduler: 5, KDPM2DiscreteScheduler: 5, PNDMScheduler: 4}


def stepping(scheduler: type):
    pipe = pipeline()
    pipe.scheduler = scheduler.from_config(dict(num_train_timesteps=1000, skip_prk_steps=True))
    return pipe


@pytest.mark.parametrize("scheduler", VISITS)
def test_every_visit_is_recorded_sooner_or_later(scheduler):
    recorder = Recorder(stepping(scheduler), PROMPTS, CONFIG)
    everything, kept = recorder.states(range(8), keep_all=True), recorder.states(range(8))
    assert everything["step"].tolist() == [*range(VISITS[scheduler])] * 8
    assert len(kept["step"]) == 8 * 2 and set(kept["step"].tolist()) == set(range(VISITS[scheduler]))
    assert set(kept["call.timestep"].tolist()) == set(everything["call.timestep"].tolist())


def test_a_scheduler_of_one_visit_a_step_keeps_what_it_always_kept():
    states = Recorder(pipeline(), PROMPTS, CONFIG).states([0, 1, 2, 3])
    assert states["step"].tolist() == [1, 2, 0, 1, 0, 2, 0, 2]


def test_the_cost_counts_visits():
    pipe = stepping(HeunDiscreteScheduler)
    assert recording_cost(Recorder(pipe, PROMPTS, CONFIG)).teacher_passes == 8 * 5 * 2
    config = TrainConfig(source="online", steps=2, batch_size=4, refresh_every=1, validation=1)
    states = OnlineStates(pipe, PROMPTS, CONFIG, config)
    cost = training_cost(pipe, states, AdapterConfig(rank=2, width=8), config, CONFIG)
    assert cost.teacher_passes == 2 * 8 * 5 * 2
