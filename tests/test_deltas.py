"""Plain deltas: hooks on layers, or folded into the weights, which are the base's own again afterwards."""

import copy

import pytest
import torch
from sampling import sample
from test_laws import run
from zoo import make, message_of, pipeline, shake

from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig, TrajectoryConfig
from guidefold.denoiser import read_call
from guidefold.errors import ModelError
from guidefold.keeping import Adapter
from guidefold.trajectories.recorder import Recorder


def built(name, **more):
    denoiser, call = make(name)
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    adapter = Adapter.build(denoiser, spec, AdapterConfig(width=8, see_condition=False, **more))
    shake(adapter)
    return denoiser, call, adapter


@pytest.fixture
def folded():
    pipe = pipeline()
    spec = Recorder(pipe, ["a red fox", "a blue cat"], TrajectoryConfig()).spec
    adapter = Adapter.build(pipe.unet, spec, AdapterConfig(rank=2, width=8))
    shake(adapter)
    return pipe, adapter.attach(pipe)


@pytest.mark.parametrize("name", ["sd", "pixart", "sd3", "wan"])
def test_folded_they_do_what_they_do_as_hooks(name):
    denoiser, call, adapter = built(name, rank=2)
    call["timestep"] = call["timestep"][:1].expand_as(call["timestep"]) if call["timestep"].dim() else call["timestep"]
    adapter.attach(denoiser).guidance_scale = 4.0
    live, before = run(denoiser, call), copy.deepcopy(denoiser.state_dict())
    hooked = []
    layer = denoiser.get_submodule(next(name for name in adapter.layered if ":" not in name))
    handle = layer.register_forward_pre_hook(lambda module, _: hooked.append(len(module._forward_hooks)))
    adapter.fold()
    torch.testing.assert_close(run(denoiser, call), live, rtol=1e-4, atol=1e-4)
    assert hooked == [0]  # no work in the layer
    handle.remove()
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    adapter.detach()
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())


def test_every_scale_is_right_and_the_teacher_stays_the_teacher(folded):
    pipe, adapter = folded
    expected = {scale: sample(pipe, scale=scale) for scale in (2.0, 6.0)}
    with adapter.disabled():
        teacher = sample(pipe)
    for fold in (adapter.fold, lambda: adapter.fold(6.0)):
        fold()
        for scale in (2.0, 6.0, 2.0):
            torch.testing.assert_close(sample(pipe, scale=scale), expected[scale], rtol=1e-3, atol=1e-3)
        both = sample(pipe, ["a red fox"] * 2, [2.0, 6.0])
        torch.testing.assert_close(both[:1], expected[2.0], rtol=1e-3, atol=1e-3)
        with adapter.disabled():
            assert torch.equal(sample(pipe), teacher)
    adapter.unfold()
    assert torch.equal(sample(pipe, scale=2.0), expected[2.0])


def test_what_others_do_to_folded_weights_is_kept(folded):
    pipe, adapter = folded
    layer = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    before = layer.weight.detach().clone()
    adapter.fold()
    sample(pipe)
    assert not torch.equal(layer.weight, before)
    layer.weight.data += 1
    adapter.unfold()
    torch.testing.assert_close(layer.weight, before + 1)


def test_what_cannot_be_folded_is_told():
    denoiser, _, adapter = built("sd")
    assert "is not attached" in message_of(ModelError, adapter.fold)
    adapter.attach(denoiser)
    assert "no deltas to fold" in message_of(ModelError, adapter.fold)
    adapter.detach()
    denoiser, _, adapter = built("sd", rank=2)
    denoiser.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight.data = torch.zeros(32, 32).to(torch.int8)
    assert "leave fold() out" in message_of(ModelError, adapter.attach(denoiser).fold)
