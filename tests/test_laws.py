"""The laws an adapter keeps on every family of denoisers."""

import copy

import pytest
import torch
from zoo import ROWS, ZOO, make, shake

from guidefold.adapters import ConditionSpec
from guidefold.adapters.layers import DESIGNS
from guidefold.config import AdapterConfig
from guidefold.denoiser import prediction_of, read_call
from guidefold.errors import ModelError
from guidefold.keeping import Adapter

CASES = [*((name, design) for name in ZOO for design in DESIGNS), ("sd-convolutions", "film")]


# 3 by 3 ones, 1 by 1 ones, and one that halves the resolution
CONVOLUTIONS = ("conv1", "conv_shortcut", "downsamplers.0.conv")


def build(name, design="film", shaken=True, **settings):
    denoiser, call = make(name.removesuffix("-convolutions"))
    targets = CONVOLUTIONS if name.endswith("-convolutions") else None
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    rank = 0 if design == "film" and targets is None else 4  # deltas of linear layers have tests of their own
    config = AdapterConfig(**{"design": design, "rank": rank, "width": 16, "target_modules": targets, **settings})
    adapter = Adapter.build(denoiser, spec, config)
    if shaken:
        shake(adapter)
    return denoiser, call, adapter


@torch.no_grad()
def run(denoiser, call):
    return prediction_of(denoiser(**call)).clone()


@pytest.mark.parametrize(("name", "design"), CASES)
def test_zero_initialised_adapter_is_the_conditional_model(name, design):
    denoiser, call, adapter = build(name, design, shaken=False)
    bare = run(denoiser, call)
    adapter.attach(denoiser).guidance_scale = 7.5
    assert torch.equal(run(denoiser, call), bare)


@pytest.mark.parametrize(("name", "design"), CASES)
def test_scale_one_disabled_and_detached_are_the_base_model_bit_for_bit(name, design):
    denoiser, call, adapter = build(name, design)
    bare, state, hooks = run(denoiser, call), copy.deepcopy(denoiser.state_dict()), count_hooks(denoiser)
    adapter.attach(denoiser).guidance_scale = 7.5
    assert not torch.equal(run(denoiser, call), bare)
    with adapter.at(1.0):
        assert torch.equal(run(denoiser, call), bare)
    with adapter.disabled():
        assert torch.equal(run(denoiser, call), bare)
    adapter.detach()
    assert torch.equal(run(denoiser, call), bare)
    assert count_hooks(denoiser) == hooks
    after = denoiser.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[key], state[key]) for key in state)


def test_only_deltas_take_convolutions():
    for name in CONVOLUTIONS:
        assert any(key.endswith(name) for key in build("sd-convolutions")[2].shapes)
    with pytest.raises(ModelError, match="adapts attentions and linear layers; film with a rank takes convolutions"):
        build("sd-convolutions", "offset")


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(("name", "design"), CASES)
def test_two_scales_in_a_batch_are_two_calls(name, design):
    denoiser, call, adapter = build(name, design)
    adapter.attach(denoiser).guidance_scale = [2.0, 8.0]
    both = run(denoiser, call)
    for row, scale in enumerate((2.0, 8.0)):
        adapter.guidance_scale = scale
        torch.testing.assert_close(run(denoiser, call)[row], both[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_of_an_adapter_learns(name):
    for design in DESIGNS:
        denoiser, call, adapter = build(name, design)
        adapter.attach(denoiser).guidance_scale = torch.full((ROWS,), 3.0)
        prediction_of(denoiser(**call)).square().sum().backward()
        idle = [
            key
            for key, value in adapter.named_parameters()
            if value.numel() and (value.grad is None or not value.grad.any())
        ]
        assert not idle, (design, idle)
        assert all(parameter.grad is None for parameter in denoiser.parameters())


@pytest.mark.parametrize("name", ZOO)
def test_bfloat16(name):
    denoiser, call, adapter = build(name)
    denoiser.to(torch.bfloat16)
    cast = {
        k: v.bfloat16() if torch.is_tensor(v) and v.is_floating_point() and k != "timestep" else v
        for k, v in call.items()
    }
    if isinstance(extra := call.get("added_cond_kwargs"), dict):
        cast["added_cond_kwargs"] = {k: v.bfloat16() if v is not None else v for k, v in extra.items()}
    bare = run(denoiser, cast)
    adapter.attach(denoiser).guidance_scale = 4.0
    assert run(denoiser, cast).dtype == torch.bfloat16
    with adapter.at(1.0):
        assert torch.equal(run(denoiser, cast), bare)
