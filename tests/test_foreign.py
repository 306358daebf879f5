"""An adapter in a model that is not diffusers', whose parameters have other names, orders and places."""

import copy

import pytest
import torch
from torch import nn
from zoo import make, message_of, shake

from guidefold.acting.foreign import Foreign
from guidefold.acting.names import alike, first_of, mapped, traced
from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.denoiser import prediction_of, read_call
from guidefold.errors import ModelError
from guidefold.keeping import Adapter

SCALE = 4.0


class Other(nn.Module):
    """A denoiser under another program's names; what `swapped` names has its halves the other way round there."""

    def __init__(self, denoiser: nn.Module, swapped: str | None) -> None:
        super().__init__()
        self.inner = copy.deepcopy(denoiser)
        self.names = {name: f"inner.{name}" for name, _ in denoiser.named_parameters()}
        if swapped:
            layer = self.inner.get_submodule(swapped)
            for kind in ("weight", "bias"):
                value = getattr(layer, kind)
                value.data = swap(value.data)
                self.names[f"{swapped}.{kind}"] = (f"inner.{swapped}.{kind}", None, swap)
            layer.register_forward_hook(lambda module, args, output: torch.cat(output.chunk(2, dim=-1)[::-1], dim=-1))

    def forward(self, **call):
        return prediction_of(self.inner(**call))


def swap(value):
    return torch.cat(value.chunk(2, dim=0)[::-1], dim=0)


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def adapter_for(denoiser, call, **settings):
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    adapter = Adapter.build(denoiser, spec, AdapterConfig(width=8, see_condition=False, **settings))
    shake(adapter)
    return adapter


def modulations(adapter, denoiser, call):
    read = read_call(denoiser, (), call)
    time = {read.timestep: read.tensors[read.timestep].reshape(-1)[:1]}
    return adapter.modulations(torch.tensor([SCALE]), time, torch.float32)


def in_diffusers(adapter, denoiser, call):
    adapter.attach(denoiser)
    with adapter.at(SCALE):
        wanted = prediction_of(denoiser(**call))
    adapter.detach()
    return wanted


def close(found, wanted):
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def casting(layer):
    """Make a layer one that brings its parameters through lists of functions, as ComfyUI's do."""

    class Casting(type(layer)):
        weight_function, bias_function = (), ()

        def forward(self, inputs):
            before = {name: getattr(self, name) for name in ("weight", "bias")}
            for name, value in before.items():
                for function in getattr(self, f"{name}_function"):
                    value = function(value)
                self._parameters[name] = value
            output = super().forward(inputs)
            self._parameters.update(before)
            return output

    layer.__class__ = Casting
    return layer


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "swapped"), [("sd", None), ("pixart", None), ("wan", None), ("sd3", "norm_out.linear")]
)
def test_another_programs_model_predicts_what_diffusers_does(kind, swapped):
    denoiser, call = make(kind)
    adapter = adapter_for(denoiser, call)
    other = Other(denoiser, swapped)
    acting = Foreign(adapter, other, mapped(shapes_of(other), other.names))
    before, base = dict(other.named_parameters()), other(**call)
    values = {name: value.clone() for name, value in before.items()}
    with acting.changed(modulations(adapter, denoiser, call), torch.device("cpu")):
        found = other(**call)
    wanted = in_diffusers(adapter, denoiser, call)
    assert (found - base).abs().max() > 1e-2
    close(found, wanted)
    with pytest.raises(KeyError), acting.changed(modulations(adapter, denoiser, call), torch.device("cpu")):
        raise KeyError
    assert all(value is before[name] and torch.equal(value, values[name]) for name, value in other.named_parameters())
    assert torch.equal(other(**call), base)


@torch.no_grad()
def test_layers_that_cast_their_weights_are_changed_after_what_patches_them():
    denoiser, call = make("sd")
    adapter = adapter_for(denoiser, call)
    other = Other(denoiser, None)
    patched = other.inner.down_blocks[1].resnets[0].norm1
    for name in ("conv_out", "mid_block.resnets.0.norm1"):
        casting(other.inner.get_submodule(name))
    casting(patched).weight_function = [lambda weight: weight + 0.5]
    acting = Foreign(adapter, other, mapped(shapes_of(other), other.names))
    with acting.changed(modulations(adapter, denoiser, call), torch.device("cpu")):
        assert len(patched.weight_function) == 2
        found = other(**call)
    assert len(patched.weight_function) == 1
    denoiser.down_blocks[1].resnets[0].norm1.weight += 0.5
    close(found, in_diffusers(adapter, denoiser, call))


def test_names_are_found_by_what_a_converter_does_to_numbered_rows():
    def convert(weights):
        query, key = weights.pop("block.qk.weight").chunk(2, dim=0)
        late, early = weights.pop("out.bias").chunk(2)
        return {"to_q.weight": query, "to_k.weight": key, "norm.bias": torch.cat([early, late]), **weights}

    names = traced({"block.qk.weight": (8, 3), "out.bias": (6,), "same.weight": (2, 2)}, convert)
    assert names["to_q.weight"].span == (0, 4) and names["to_k.weight"].span == (4, 4)
    assert names["norm.bias"].order.tolist() == [3, 4, 5, 0, 1, 2]
    assert names["same.weight"].name == "same.weight" and names["same.weight"].span is None
    with pytest.raises(ValueError, match="another order"):
        _ = names["norm.bias"].span
    given = {"to_k.weight": ("block.qk.weight", (0, 4, 4)), "norm.bias": ("out.bias", None, swap)}
    by_map = mapped({"block.qk.weight": (8, 3), "out.bias": (6,)}, given)
    assert all(torch.equal(by_map[name].order, names[name].order) for name in given)
    found, missing = first_of([alike({"a": (1,)}), names], ["norm.bias", "to_k.weight"])
    assert found is names and missing is None


def test_an_adapter_for_another_model_is_told_in_one_line():
    denoiser, call = make("sd")
    other = make("sd3")[0]
    told = message_of(ModelError, lambda: Foreign(adapter_for(denoiser, call), other, alike(shapes_of(other))))
    assert "for another base model" in told
    told = message_of(ModelError, lambda: Foreign(adapter_for(denoiser, call, design="offset", rank=2), denoiser, {}))
    assert "film" in told
    told = message_of(ModelError, lambda: Foreign(adapter_for(denoiser, call, design="lora", rank=2), denoiser, {}))
    assert "guidefold export" in told
