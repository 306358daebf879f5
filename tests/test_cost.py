"""The cost of a run, told before it is run."""

import pytest
from sampling import build
from zoo import pipeline

from guidefold import cli, commands
from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.distillation.cost import recording_cost, training_cost
from guidefold.distillation.states import OnlineStates, TrialStates
from guidefold.trajectories.recorder import Recorder

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car"]
TRAJECTORY = TrajectoryConfig(trajectories=8, sampling_steps=3, keep=2, record_batch=2, shard=4)


def test_recording_costs_two_passes_a_step():
    cost = recording_cost(Recorder(pipeline(), PROMPTS, TRAJECTORY))
    assert cost.teacher_passes == 8 * 3 * 2
    assert cost.store_bytes > 8 * 2 * 2 * 4 * 8 * 8 * 4  # latents and a prediction of each state, in float32
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


def test_a_trial_step_is_of_a_whole_batch_and_asks_for_one_of_the_recorders():
    pipe = pipeline()
    recorder = Recorder(pipe, PROMPTS, TRAJECTORY)
    config = TrainConfig(steps=6, batch_size=10, validation=8)
    states = TrialStates(recorder, config)
    assert states.batch(0)["trajectory"].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1]
    cost = training_cost(pipe, states, AdapterConfig(rank=2, width=8), config, TRAJECTORY)
    assert (cost.teacher_passes, cost.student_passes) == (0, 60)


@pytest.mark.parametrize("options", [["--validation", "4"], ["--follow", "{adapter}"], ["--source", "online"]])
def test_a_dry_run_tells_the_cost_of_what_would_run(options, tmp_path, monkeypatch, capsys):
    pipe = pipeline()
    monkeypatch.setattr(commands, "pipeline", lambda *_, **__: pipe)
    build(pipe).save_pretrained(tmp_path / "adapter")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    given = dict(conditions=tmp_path / "prompts.txt", output=tmp_path / "run", trajectories=16, sampling_steps=2)
    given |= dict(keep=1, record_batch=4, shard=4, steps=2, batch_size=4, rank=2, width=8, validation=1, scale_max=4)
    line = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    line += [one.format(adapter=tmp_path / "adapter") for one in options]
    assert cli.main(["distill", *line, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert told.count("teacher passes") == (1 if "online" in options else 2)
    for phase in ("recording", "training, 4 states at once", "validation"):
        assert f"memory of {phase}, computed: " in told and "at most, on cpu" in told
    assert not (tmp_path / "run").exists()
