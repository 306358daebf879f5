"""The layer that makes the prediction: found by running it, and alone proportional to guidance_scale - 1."""

import pytest
import torch
from test_laws import run
from torch import nn
from zoo import ROWS, make, shake

from guidefold.adapters import ConditionSpec
from guidefold.adapters.layers import DESIGNS
from guidefold.adapters.targets import find_output
from guidefold.config import AdapterConfig
from guidefold.denoiser import read_call
from guidefold.keeping import Adapter

OUTPUTS = {"sd": "conv_out", "dit": "proj_out_2", "pixart": "proj_out", "sd3": "proj_out", "wan": "proj_out"}


def build(name, design="cross_attention", **more):
    """Return a denoiser, a call, and an adapter whose gates are all 1."""
    denoiser, call = make(name)
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    torch.manual_seed(0)
    adapter = Adapter.build(denoiser, spec, AdapterConfig(design=design, rank=2, width=8, **more))
    shake(adapter)
    with torch.no_grad():
        adapter.heads.weight.zero_()
        adapter.heads.bias.zero_()
    return denoiser, call, adapter


def changes(denoiser, call, adapter, scales):
    """Return by how much the prediction changes at each scale."""
    with adapter.disabled():
        bare = run(denoiser, call)
    found = []
    for scale in scales:
        with adapter.at(scale):
            found.append(run(denoiser, call) - bare)
    return found


@torch.no_grad()
def silence(adapter, chosen):
    for name, layer in zip(adapter.layered, adapter.layers, strict=True):
        if chosen(name):
            layer.up.zero_()
    if adapter.film is not None and chosen("a norm"):
        for parameter in adapter.film.head.parameters():
            parameter.zero_()


@pytest.mark.parametrize("name", OUTPUTS)
def test_it_is_found_and_adapted_last(name):
    denoiser, call, adapter = build(name)
    assert find_output(denoiser, call) == adapter.spec.output == OUTPUTS[name] == list(adapter.shapes)[-1]
    assert not any(module._forward_hooks for module in denoiser.modules())


@pytest.mark.parametrize("design", [design for design in DESIGNS if design != "lora"])
def test_its_change_is_proportional_to_the_scale_less_one(design):
    denoiser, call, adapter = build("dit", design)
    silence(adapter, lambda name: name != adapter.spec.output)
    adapter.attach(denoiser)
    none, one, seven = changes(denoiser, call, adapter, (1.0, 2.0, 8.0))
    assert not none.any() and one.any()
    torch.testing.assert_close(seven, 7 * one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_what_comes_before_it_is_not_overdriven(name):
    denoiser, call, adapter = build(name)
    silence(adapter, lambda name: name == adapter.spec.output)
    adapter.attach(denoiser)
    two, twenty, fifty = changes(denoiser, call, adapter, (2.0, 20.0, 50.0))
    torch.testing.assert_close(twenty, fifty)
    assert twenty.norm() < 2 * two.norm()


def test_it_can_change_the_prediction_in_every_direction():
    _, _, adapter = build("dit")
    layer = adapter.layers[-1]
    assert adapter.config.rank == 2 and layer.up.shape == (32, 16) and layer.down.shape == (16, 16)


@torch.no_grad()
def test_it_can_be_all_that_is_adapted():
    denoiser, call, adapter = build("sd", "film", target_modules=("conv_out",))
    assert list(adapter.shapes) == ["conv_out"]
    adapter.attach(denoiser)
    assert changes(denoiser, call, adapter, (2.0,))[0].any()


class Spread(nn.Module):
    """A denoiser whose last layer makes less than its prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, sample, timestep):
        return self.layer(sample).repeat(1, 2)


def test_a_prediction_that_no_layer_makes_has_none():
    assert find_output(Spread(), {"sample": torch.randn(ROWS, 4), "timestep": 1}) is None
    assert find_output(Spread(), {"sample": torch.randn(ROWS, 4)}) is None
    assert find_output(nn.Identity(), {"input": torch.randn(ROWS, 4)}) is None
