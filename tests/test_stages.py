"""Pipelines that run more than two rows, leave guidance to a component, or have several denoisers: one pass each."""

import pytest
import torch
from support.case import build
from test_capture import snapshot
from test_dials import PROMPTS, Conditions, built, case_of, fixed, latents, recorder_of
from zoo import message_of

from guidefold.capture.run import run
from guidefold.denoiser import denoisers
from guidefold.distillation.student import Student
from guidefold.errors import InputError
from guidefold.keeping.group import AdapterGroup
from guidefold.trajectories.conditions import draw
from guidefold.trajectories.states import negative_of

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_perturbed_attention_folds_three_rows_into_one():
    pipe, recorder, call = case_of("StableDiffusionPAGPipeline", dials=("pag_scale=1:3",))
    teacher, states = run(pipe, call), recorder.states([0, 1])
    assert list(recorder.spec.offs.items()) == [("guidance_scale", 1.0), ("pag_scale", 0.0)]
    assert states["dial.pag_scale"].unique().numel() == 2 and states["dial.pag_scale"].min() >= 1
    adapter = built(recorder).attach(pipe)
    seen = Conditions(adapter)
    call = {**call, "negative_prompt": None}
    folded = run(pipe, {**call, "guidance_scale": 4.0, "pag_scale": 2.0})
    assert teacher.rows == 3 * folded.rows == 9
    assert all(scale.tolist() == [[4.0, 3.0]] for scale in seen.scales)  # off is 1 in every column
    assert not torch.equal(latents(pipe, call, pag_scale=1.0), latents(pipe, call, pag_scale=2.0))
    off = latents(pipe, call, guidance_scale=1.0, pag_scale=0.0)
    adapter.detach()
    assert torch.equal(latents(pipe, call, guidance_scale=1.0, pag_scale=0.0), off)


def test_a_guider_is_folded_and_turned_on_again():
    pipe, recorder, call = case_of("HunyuanVideo15Pipeline", negatives=("blurry",))
    teacher, adapter = run(pipe, call), built(recorder).attach(pipe)
    seen, pipe.guider.guidance_scale = Conditions(adapter), 3.0
    folded = run(pipe, call)
    assert recorder.spec.guider and teacher.rows == 2 * folded.rows
    assert all(scale.tolist() == [3.0] for scale in seen.scales) and seen.negatives[0]
    with pytest.raises(ZeroDivisionError):
        run(pipe, call, answer=lambda name, number, call: 1 / 0)
    assert pipe.guider._enabled
    adapter.detach()
    pipe.guider.guidance_scale = 6.0
    assert torch.equal(run(pipe, call).result[0], teacher.result[0])


def two_stages():
    """Return a pipeline with a network for early steps and one for late ones."""
    case = build("WanPipeline")
    torch.manual_seed(1)
    later = type(case.pipe.transformer).from_config(case.pipe.transformer.config).eval().requires_grad_(False)
    pipe = type(case.pipe)(**{**case.pipe.components, "transformer_2": later}, boundary_ratio=0.9)
    pipe.set_progress_bar_config(disable=True)
    return pipe, {**case.call, "num_inference_steps": 4}


def test_one_of_two_denoisers_cannot_sample_alone():
    pipe, call = two_stages()
    told = message_of(InputError, lambda: recorder_of(pipe, denoiser="transformer", follow="bundled", **fixed(call)))
    assert told == "follow is bundled, but guidance runs several denoisers here; leave follow out"


def answers(pipe, call, name):
    return [one.answer[0] for one in run(pipe, call).called if one.denoiser == name]


@pytest.mark.parametrize("last", [0, 1])
def test_two_denoisers_take_an_adapter_each_detached_in_any_order(last):
    pipe, call = two_stages()
    names = list(denoisers(pipe))
    more = [dict(dials=("guidance_scale_2=2:3",)), dict(negatives=("blurry",))]
    pairs = zip(names, more, strict=True)
    recorders = [recorder_of(pipe, denoiser=name, **fixed(call), **extra) for name, extra in pairs]
    call = {**call, "guidance_scale_2": 2.5, "negative_prompt": None}
    teacher = run(pipe, call)
    bare = {name: answers(pipe, {**call, "guidance_scale": 1.0}, name) for name in names}
    adapters = [built(recorder) for recorder in recorders]
    before = snapshot(pipe)
    for adapter in adapters:
        adapter.attach(pipe)
    seen = [Conditions(adapter) for adapter in adapters]
    assert 2 * run(pipe, call).rows == teacher.rows
    assert [len(one.scales) for one in seen] == [len(bare[name]) for name in names] and all(one.scales for one in seen)
    assert seen[0].scales[0].shape == (1, 2) and seen[1].scales[0].shape == (1,) and seen[1].negatives[0]
    for adapter in adapters:
        with adapter.disabled():  # guidance is on or off for all stages
            assert torch.equal(run(pipe, call).result[0], teacher.result[0])
    adapters[1 - last].detach()
    with pytest.warns(UserWarning, match=f"{names[1 - last]} has no adapter, so guidance takes all passes"):
        assert torch.equal(run(pipe, call).result[0], teacher.result[0])
    AdapterGroup(dict(zip(names, adapters, strict=True))).detach()  # what is still attached
    assert snapshot(pipe) == before and torch.equal(run(pipe, call).result[0], teacher.result[0])


@pytest.mark.parametrize("name", ["prior_prior", "decoder"])
def test_each_stage_learns_of_the_negative_prompt(name):
    settings = dict(negatives=("blurry",), record_batch=1, dials=("decoder_guidance_scale=1:3",))
    pipe, recorder, call = case_of("StableCascadeCombinedPipeline", denoiser=name, **settings)
    other = recorder_of(pipe, denoiser=({"prior_prior", "decoder"} - {name}).pop(), **settings, **fixed(call))
    states, adapter = recorder.states([0]), built(recorder)
    AdapterGroup({name: adapter, "other": built(other)}).attach(pipe)
    with torch.no_grad():
        assert Student(recorder.denoiser, adapter, recorder.static)(states).isfinite().all()
    assert recorder.spec.anchors == 2 and recorder.spec.denoiser == name
    number = next(n for n in range(20) if draw(recorder.config, PROMPTS, n).negative)
    with adapter.disabled():
        stored = negative_of(recorder.states([number]))
    seen = Conditions(adapter)
    run(pipe, {**call, "negative_prompt": "blurry"})
    assert len(seen.negatives) == 3 and seen.negatives[0].keys() == stored.keys()
    assert all(torch.equal(seen.negatives[0][name], value[:1]) for name, value in stored.items())
