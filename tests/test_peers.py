"""The benchmarks' peers: each trains, is the bare model before, and leaves the pipeline as it was."""

import sys
from pathlib import Path

import pytest
import torch
from runs import PROMPTS, assert_unchanged, settings, state_of
from zoo import shake

from guidefold.capture.run import run
from guidefold.capture.tape import Tape
from guidefold.distillation.states import RecordedStates, told_by
from guidefold.distillation.student import energies
from guidefold.trajectories.store import Store

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from learning import build, learning
from race import PEERS


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_trains_from_the_bare_model_on(name, pipe, store):
    before = state_of(pipe)
    config = settings(steps=2, learning_rate=PEERS[name].learning_rate, mixed_precision="no")
    source = RecordedStates([Store.open(store)], config)
    states = source.batch(0)
    with learning(pipe, source, PEERS[name], config) as loop:
        above, below = energies(loop.student, states)
        torch.testing.assert_close(above, below)  # untrained
        loop.run()
        trained, _ = energies(loop.student, states)
        assert not torch.allclose(trained, below, rtol=1e-6)
    assert_unchanged(pipe, before)


@pytest.mark.parametrize("name", PEERS)
def test_a_pipeline_takes_one_pass_with_a_peer(name, pipe, store):
    def sampled(scale: float) -> Tape:
        return run(pipe, {"prompt": PROMPTS[:1], "guidance_scale": scale, "num_inference_steps": 2})

    before, (bare, teacher) = state_of(pipe), (sampled(1.0), sampled(4.0))
    peer = build(pipe, told_by(Store.open(store))[0], PEERS[name]).attach(pipe)
    torch.testing.assert_close(sampled(4.0).steps[-1].received, bare.steps[-1].received)  # untrained
    shake(peer)
    shaken = sampled(4.0)
    assert shaken.rows == bare.rows and not torch.equal(shaken.steps[0].received, bare.steps[0].received)
    with peer.disabled():
        assert torch.equal(sampled(4.0).steps[-1].received, teacher.steps[-1].received)
    peer.detach()
    assert_unchanged(pipe, before)
