"""A ControlNet's residuals are made again and not recorded, wherever that gives what its pipeline gave."""

import json
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from diffusers import DiffusionPipeline, MultiControlNetModel, StableDiffusionPipeline
from runs import SHAPE, contents, interrupt, rows, settings
from support.case import build, enliven
from support.families import controlnet as families
from test_dials import fixed
from zoo import message_of

from guidefold import cli
from guidefold.capture.makers import Maker, bound, remade
from guidefold.config import HoldingConfig, TrajectoryConfig
from guidefold.distillation import plan
from guidefold.distillation.memory import Sketch, bytes_of, student_memory
from guidefold.distillation.run import record, train
from guidefold.distillation.states import RecordedStates, makers_of
from guidefold.errors import ModelError, StoreError
from guidefold.evaluation.predictions import on_teacher_states
from guidefold.trajectories.identity import fingerprint
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of, own_of
from guidefold.trajectories.store import Store

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

observing = import_module("guidefold.capture.observe")  # its package has a function of this name
PROMPTS = ["a red fox", "a blue cat", "green tree"]
CONFIG = TrajectoryConfig(trajectories=4, sampling_steps=3, keep=2, record_batch=2, shard=2)
NAMES = [f"StableDiffusion{kind}ControlNetPipeline" for kind in ("", "XL", "3")]
SHORT = settings(steps=4, batch_size=3, validation=1, checkpoint_every=2, refresh_every=2)


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    return build(request.param)


def size(tensors) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def test_residuals_made_again_are_those_the_pipeline_gave(case, monkeypatch):
    arguments = fixed(case.call)
    lean = Recorder(case.pipe, PROMPTS, CONFIG, **arguments)
    states, shard = lean.states([0, 1]), lean.shard([0, 1])
    makers = bound(case.pipe, lean.makers)
    again = remade(makers, inputs_of(states), own_of(states))
    with monkeypatch.context() as patch:
        patch.setattr(observing, "makings", lambda *_: ())
        whole = Recorder(case.pipe, PROMPTS, CONFIG, **arguments)
    kept, given = whole.shard([0, 1]), inputs_of(whole.states([0, 1]))
    assert given.keys() - inputs_of(states).keys() == set(again) and any("control" in n or "block" in n for n in again)
    assert all(torch.allclose(value, given[name], rtol=1e-4, atol=1e-5) for name, value in again.items())
    # a store has the picture once a trajectory in place of them, and nothing else is other
    extra = {name: value for name, value in shard.items() if "maker." in name}
    residuals = {name: value for name, value in kept.items() if name.removeprefix("call.") in again}
    assert "trajectory.maker.controlnet.controlnet_cond" in extra
    assert all(name.startswith("trajectory.") for name in extra) and len(extra) <= 2  # SD3's has texts of its own
    assert size(shard) == size(kept) - size(residuals) + size(extra)
    assert all(torch.equal(shard[name], kept[name]) for name in kept.keys() - residuals.keys())


def test_training_is_that_on_residuals_which_were_stored(case, tmp_path, monkeypatch):
    arguments = fixed(case.call)
    lean = record(case.pipe, PROMPTS, tmp_path / "lean", CONFIG, **arguments)
    assert (lean.header["format"], len(makers_of(lean))) == (4, 1)
    train(case.pipe, tmp_path / "run", store=lean.folder, adapter=SHAPE, config=SHORT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, "recorded", 3)
        train(case.pipe, tmp_path / "cut", store=lean.folder, adapter=SHAPE, config=SHORT)
    train(case.pipe, tmp_path / "cut", store=lean.folder, adapter=SHAPE, config=SHORT)
    assert contents(tmp_path / "cut") == contents(tmp_path / "run")
    monkeypatch.setattr(observing, "makings", lambda *_: ())
    whole = record(case.pipe, PROMPTS, tmp_path / "whole", CONFIG, **arguments)
    assert whole.header["format"] == 3 and not makers_of(whole)
    train(case.pipe, tmp_path / "other", store=whole.folder, adapter=SHAPE, config=SHORT)
    one, two = ([row["loss"] for row in rows(tmp_path / run)] for run in ("run", "other"))
    assert one == pytest.approx(two, rel=1e-3) and len(one) == 4
    told = message_of(StoreError, lambda: record(case.pipe, PROMPTS, lean.folder, CONFIG, **arguments))
    assert "was made with format = 4, this run has format = 3; " in told


def test_states_made_on_the_fly_have_none_either(case, tmp_path, monkeypatch):
    given = dict(conditions=PROMPTS, trajectory=CONFIG, adapter=SHAPE, config=replace(SHORT, source="online"))
    given |= fixed(case.call)
    adapter = train(case.pipe, tmp_path / "run", **given)
    judged = dict(steps=2, seed=0, batch=2, **fixed(case.call))
    adapter.attach(case.pipe)
    lean = on_teacher_states(case.pipe, adapter, PROMPTS[:2], [3.0], **judged)
    monkeypatch.setattr(observing, "makings", lambda *_: ())
    whole = on_teacher_states(case.pipe, adapter, PROMPTS[:2], [3.0], **judged)
    adapter.detach()
    assert lean[0] == pytest.approx(whole[0], abs=1e-3) and lean[1] == pytest.approx(whole[1], abs=1e-3)
    train(case.pipe, tmp_path / "other", **given)
    one, two = ([row["loss"] for row in rows(tmp_path / run)] for run in ("run", "other"))
    assert one == pytest.approx(two, rel=1e-3) and len(one) == 4


def test_several_controlnets_are_one_maker():
    case = build(NAMES[0])
    second = enliven_of(families.controlnet(case.pipe.unet))
    pipe = type(case.pipe)(**case.pipe.components | {"controlnet": [case.pipe.controlnet, second]})
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.controlnet, MultiControlNetModel)
    picture = fixed(case.call)["image"]
    more = {"image": [picture, picture], "controlnet_conditioning_scale": [1.0, 0.5]}
    recorder = Recorder(pipe, PROMPTS, CONFIG, **fixed(case.call) | more)
    states = recorder.states([0, 1])
    assert {f"maker.controlnet.controlnet_cond.[{number}]" for number in (0, 1)} <= states.keys()
    assert recorder.makers[0].static["conditioning_scale"] == [1.0, 0.5]
    assert not [name for name in states if "residual" in name]


def enliven_of(network):
    enliven(network.eval().requires_grad_(False))
    return network


class Counting:
    """What a network adds that answers to more than its arguments."""

    def __init__(self, forward) -> None:
        self.forward, self.calls = forward, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        down, mid = self.forward(*args, **kwargs)
        return [value + self.calls for value in down], mid


@pytest.mark.parametrize("reason", ["a schedule", "off where it is watched", "a memory of its own"])
def test_what_cannot_be_made_again_is_recorded(reason, monkeypatch):
    case = build(NAMES[0])
    arguments = fixed(case.call)
    if reason == "a schedule":
        arguments["control_guidance_end"] = 0.5
    elif reason == "off where it is watched":
        arguments |= {"control_guidance_start": 0.3, "control_guidance_end": 0.9}
    else:
        monkeypatch.setattr(case.pipe.controlnet, "forward", Counting(case.pipe.controlnet.forward))
    config = replace(CONFIG, sampling_steps=4, record_batch=1, shard=1)
    recorder = Recorder(case.pipe, PROMPTS, config, **arguments)
    states = recorder.states([0])
    assert not recorder.makers and "makers" not in recorder.header()
    assert "call.mid_block_additional_residual" in states and not [name for name in states if name[:5] == "maker"]


def test_a_store_is_trained_on_with_its_own_controlnet(tmp_path):
    case = build(NAMES[0])
    pipe = case.pipe
    store = record(pipe, PROMPTS, tmp_path / "store", CONFIG, **fixed(case.call)).folder
    given = dict(store=store, adapter=SHAPE, config=replace(SHORT, steps=2))
    train(pipe, tmp_path / "run", **given)
    told = message_of(ModelError, lambda: train(pipe.unet, tmp_path / "alone", **given))
    assert told == (
        "the controlnet is missing, whose answers are made again while training; give the pipeline that was recorded"
    )
    before = fingerprint(pipe.controlnet)
    with torch.no_grad():
        next(pipe.controlnet.parameters()).add_(1)
    for folder in ("run", "new"):
        told = message_of(StoreError, lambda folder=folder: train(pipe, tmp_path / folder, **given))
        assert f"was recorded with the controlnet {before}, not with {fingerprint(pipe.controlnet)}; load that" in told
    path = store / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"makers": [{"component": "controlnet"}]}))
    assert "is damaged (no 'static')" in message_of(StoreError, lambda: makers_of(Store.open(store)))


def test_a_maker_is_told_and_read_back():
    maker = Maker(component="controlnet", made={"a.(0)": 0, "b": 1}, borrowed=("sample",), static={"scale": (1.0, 2)})
    assert Maker.from_dict(json.loads(json.dumps(maker.to_dict()))) == maker


def test_memory_of_a_step_counts_the_controlnet(tmp_path):
    case = build(NAMES[0])
    arguments = plan.guided_call(case.pipe, PROMPTS, CONFIG, fixed(case.call))
    denoiser, call, beside = plan.first_call(case.pipe, arguments, None)
    assert beside == (case.pipe.controlnet,) and "mid_block_additional_residual" in call.tensors
    store = record(case.pipe, PROMPTS, tmp_path, CONFIG, **fixed(case.call))
    source = RecordedStates([store], SHORT)
    sketch = Sketch(spec=source.spec, states=source.batch(0), static=source.static, makers=source.makers, beside=beside)
    config = replace(SHORT, mixed_precision="no", gradient_checkpointing=False)
    need, _ = student_memory(denoiser, sketch, SHAPE, config, HoldingConfig(), 2)
    recorder = Recorder(case.pipe, PROMPTS, CONFIG, **fixed(case.call))
    inputs = inputs_of(recorder.states([0, 1]))
    plain = {f"call.{name}": value for name, value in inputs.items()} | {"guidance_scale": torch.ones(2)}
    bare = replace(sketch, states=plain, makers=(), beside=())
    other, _ = student_memory(denoiser, bare, SHAPE, config, HoldingConfig(), 2)
    weights = bytes_of(case.pipe.controlnet)
    assert need.resting - other.resting == weights and need.peak > other.peak + weights  # and the residuals


@pytest.mark.parametrize("named", [True, False])
def test_training_from_a_store_loads_denoiser_and_controlnet_alone(named, tmp_path, monkeypatch, capsys):
    case = build(NAMES[0])
    pipe = case.pipe
    store = record(pipe, PROMPTS, tmp_path / "store", CONFIG, **fixed(case.call)).folder
    parts = {name: part for name, part in pipe.components.items() if name != "controlnet"}
    (StableDiffusionPipeline(**parts) if named else pipe).save_pretrained(tmp_path / "model")
    pipe.controlnet.save_pretrained(tmp_path / "controlnet")

    def fail(*_, **__):
        raise AssertionError("a whole pipeline was loaded")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fail)
    given = dict(model=tmp_path / "model", store=store, rank=2, width=8, device="cpu", steps=2, batch_size=2)
    given |= dict(validation=1, output=tmp_path / "run")
    line = ["train", *(part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value)))]
    dress = ["--controlnet", str(tmp_path / "controlnet")] if named else []
    assert cli.main([*line, *dress, "--dry-run"]) == 0
    assert "memory of training, 2 states at once, computed" in capsys.readouterr().out
    assert cli.main([*line, *dress]) == 0
    if named:
        assert cli.main(line) == 2
        assert "has no controlnet, which the store was recorded with; give controlnet" in capsys.readouterr().err
