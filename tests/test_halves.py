"""Judging a pipeline whose scheduler receives the guided prediction once for each branch: DiT."""

import pytest
import torch
from test_known import build

from guidefold.capture.tape import aligned
from guidefold.config import AdapterConfig, EvalConfig, TrajectoryConfig
from guidefold.evaluation.evaluate import evaluate
from guidefold.evaluation.predictions import own_energies
from guidefold.keeping import Adapter
from guidefold.trajectories.recorder import Recorder

LABELS = ["1", "2", "0", "3"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_a_run_follows_another_from_one_branch_to_two():
    one, two = torch.arange(6.0).reshape(2, 3), torch.zeros(4, 3)
    assert torch.equal(aligned(one, two), torch.cat([one, one]))
    assert torch.equal(aligned(aligned(one, two), one), one)
    assert aligned(one, torch.zeros(3, 3)) is None


def test_what_adds_nothing_recovers_nothing_and_ends_where_no_guidance_does():
    pipe = build("DiTPipeline").pipe
    recorder = Recorder(pipe, LABELS, TrajectoryConfig(sampling_steps=3, keep=2))
    adapter = Adapter.build(recorder.denoiser, recorder.spec, AdapterConfig(width=8, squeeze=4))
    config = EvalConfig(scales=(4.0,), images=4, sampling_steps=3, eval_batch=2, bootstrap=0)
    results, _ = evaluate(pipe, adapter, LABELS, None, config)
    none, cfg, folded = results.rows
    assert [row.passes for row in (none, cfg, folded)] == [1, 2, 1]
    assert folded.latent_distance == pytest.approx(1)
    assert results.recovered_on_own_states["4.0"] == pytest.approx(0, abs=1e-6)
    assert results.recovered_by_scale["4.0"] == pytest.approx(0, abs=1e-6)
    adapter.attach(pipe)  # and the teacher is asked where the adapter goes
    missed, whole = own_energies(pipe, adapter, LABELS[:2], 4.0, 3, 0, {})
    assert torch.equal(missed, whole) and (whole > 0).all()
