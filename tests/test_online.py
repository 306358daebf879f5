"""States made on the fly: kept as a store keeps them, and those that the recorder gives."""

import torch
from zoo import pipeline

from guidefold.config import TrainConfig, TrajectoryConfig
from guidefold.distillation.states import OnlineStates

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car"]
DRAWN = TrajectoryConfig(trajectories=4, sampling_steps=2, keep=2, record_batch=2, shard=2)


def test_sets_hold_text_once_and_give_the_recorders_states():
    config = TrainConfig(source="online", batch_size=9, validation=0, refresh_every=1)
    source = OnlineStates(pipeline(), PROMPTS, DRAWN, config)
    batch = source.batch(1)
    kept = source.make(0)
    assert len(kept["step"]) == 4 and len(kept["trajectory.call.encoder_hidden_states"]) == 2
    assert all(value.device.type == "cpu" for value in kept.values())
    made = [source.recorder.states(numbers, keep_all=True) for numbers in ([0, 1], [2, 3])]
    states = {name: torch.cat([one[name] for one in made]) for name in made[0]}
    place = {
        (int(i), int(step)): row for row, (i, step) in enumerate(zip(states["trajectory"], states["step"], strict=True))
    }
    rows = [place[int(i), int(step)] for i, step in zip(batch["trajectory"], batch["step"], strict=True)]
    assert len(rows) == 9 and len(set(rows)) > 4 and batch.keys() == states.keys()
    assert all(torch.equal(batch[name], value[rows]) for name, value in states.items())
