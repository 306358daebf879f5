"""What distilling would refuse after hours of recording it refuses before, and then touches nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import DRAWN, PROMPTS, SHAPE, assert_unchanged, contents, interrupt, settings, state_of
from sampling import build
from support.case import build as case_of
from test_dials import fixed
from zoo import message_of

from guidefold.config import AdapterConfig
from guidefold.distillation.run import distill
from guidefold.errors import GuidefoldError
from guidefold.trajectories.recorder import Recorder


@pytest.fixture(autouse=True)
def no_recording(monkeypatch):
    monkeypatch.setattr(Recorder, "shard", lambda *_: pytest.fail("recorded before it was refused"))


def refused(pipe, output: Path, conditions=PROMPTS, trajectory=DRAWN, adapter=SHAPE, **changes) -> str:
    """Return why distilling is refused, after making sure that it changed nothing."""
    files = {path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()}
    before, random = state_of(pipe), torch.get_rng_state()
    given = dict(trajectory=trajectory, adapter=adapter, config=settings(**changes))
    told = message_of(GuidefoldError, lambda: distill(pipe, conditions, output, **given))
    assert {path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()} == files
    assert_unchanged(pipe, before)
    assert torch.equal(torch.get_rng_state(), random)
    return told


def test_bad_settings_are_refused_before_anything_is_recorded(pipe, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert "no adapter at /nowhere" in refused(pipe, run, init="/nowhere")
    build(pipe, rank=3).save_pretrained(tmp_path / "other")
    assert "cannot start from" in refused(pipe, run, init=str(tmp_path / "other"))
    nothing = AdapterConfig(target_modules=("to_x",))
    assert "match nothing in UNet2DConditionModel" in refused(pipe, run, adapter=nothing)
    assert "holds out every recorded prompt; give at most 6" in refused(pipe, run, validation=8)
    monkeypatch.setattr("guidefold.distillation.run.find_spec", lambda name: None)
    assert "tracker is wandb but it is not installed" in refused(pipe, run, tracker="wandb")
    assert not run.exists()


def test_another_folder_is_refused_before_anything_is_recorded(pipe, finished, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    assert "is not empty and holds no run" in refused(pipe, tmp_path)
    assert "cannot make a store" in refused(pipe, tmp_path / "letters.txt")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes((finished["recorded"] / "run.json").read_bytes())
    told = refused(pipe, tmp_path / "run", learning_rate=1e-3)
    assert "holds a run with learning_rate 0.002, not 0.001; give another output folder" in told


def test_an_interrupted_distillation_goes_on(pipe, store, finished, tmp_path, monkeypatch):
    monkeypatch.undo()
    call = dict(adapter=SHAPE, trajectory=DRAWN, config=settings())
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, "recorded", 4)
        distill(pipe, PROMPTS, tmp_path, **call)
    distill(pipe, PROMPTS, tmp_path, **call)
    found = {name: value for name, value in contents(tmp_path).items() if not name.startswith("store")}
    assert found == contents(finished["recorded"])
    other = replace(DRAWN, seed=7)
    assert "was made with config.seed = 0, this run has config.seed = 7" in refused(pipe, tmp_path, trajectory=other)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_of_several_denoisers_all_are_checked_first(tmp_path):
    case = case_of("StableCascadeCombinedPipeline")
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "letters.txt").write_text("dear")
    given = dict(trajectory=replace(DRAWN, record_batch=1), adapter=SHAPE, config=settings())
    told = message_of(GuidefoldError, lambda: distill(case.pipe, PROMPTS, tmp_path, **given, **fixed(case.call)))
    assert "decoder is not empty and holds no run" in told
    assert [path.name for path in tmp_path.rglob("*")] == ["decoder", "letters.txt"]
