"""Readers: the base's own cross-attentions read the negative prompt too."""

import copy

import pytest
import torch
from diffusers.models.attention_processor import Attention
from test_laws import run
from torch._dynamo.testing import CompileCounter
from zoo import ROWS, make, shake

from guidefold.adapters import ConditionSpec
from guidefold.adapters.readers import find_readers, negative_tokens, read_negative, reads
from guidefold.config import AdapterConfig
from guidefold.denoiser import read_call
from guidefold.keeping import Adapter

NAMES = [f"{block}.attentions.0.transformer_blocks.0.attn2" for block in ("down_blocks.1", "up_blocks.0", "mid_block")]


def observed(name, *, negative=True):
    denoiser, call = make(name)
    return denoiser, call, ConditionSpec.observe(denoiser, read_call(denoiser, (), call), negative=negative)


def silent(adapter):
    """Leave nothing of an adapter but its readers."""
    shake(adapter)
    with torch.no_grad():
        for name, layer in zip(adapter.layered, adapter.layers, strict=True):
            if not reads(name):
                layer.up.zero_()
        for parameter in [] if adapter.film is None else adapter.film.head.parameters():
            parameter.zero_()
    return adapter


@pytest.fixture(params=["cross_attention", "film"])
def reading(request):
    denoiser, call, spec = observed("sd")
    torch.manual_seed(0)
    adapter = silent(Adapter.build(denoiser, spec, AdapterConfig(design=request.param, rank=2, width=8))).attach(
        denoiser
    )
    yield denoiser, call, adapter
    adapter.detach()


def told(tokens):
    return {"encoder_hidden_states": tokens}


def test_readers_are_found_by_structure_where_there_are_negative_prompts():
    denoiser, _, spec = observed("sd")
    found = sorted([*NAMES, NAMES[1].replace("attentions.0", "attentions.1")])
    assert sorted(find_readers(denoiser, spec)) == [f"{name}:negative" for name in found]
    denoiser, _, spec = observed("sd", negative=False)
    assert not find_readers(denoiser, spec)


@pytest.mark.parametrize("name", ["pixart", "sd3", "wan"])
def test_projected_and_joint_tokens_have_no_readers(name):
    denoiser, _, spec = observed(name)
    assert not find_readers(denoiser, spec)
    assert spec.negative and Adapter.build(denoiser, spec).shapes


@torch.no_grad()
def test_a_reader_puts_out_what_the_base_does_for_the_negative_prompt():
    torch.manual_seed(0)
    module = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4)
    latents, prompt, negative = torch.randn(4, 5, 8), torch.randn(4, 3, 6), torch.randn(2, 7, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7])
    call = {"encoder_hidden_states": prompt, "attention_mask": torch.zeros(4, 1, 3)}
    conditions = {"negative.encoder_hidden_states": negative}
    each = negative.repeat_interleave(2, dim=0)
    found = read_negative(module, (latents,), call, negative_tokens(conditions))
    assert torch.equal(found, module(latents, encoder_hidden_states=each))
    masked = conditions | {"negative.encoder_attention_mask": mask}
    found = read_negative(module, (latents,), call, negative_tokens(masked))
    expected = module(latents[:2], encoder_hidden_states=negative[:1, :5].expand(2, -1, -1))
    torch.testing.assert_close(found[:2], expected)
    torch.testing.assert_close(found[2:], module(latents[2:], encoder_hidden_states=each[2:]))
    assert read_negative(module, (latents,), {"encoder_hidden_states": None}, negative_tokens(conditions)) is None


@torch.no_grad()
def test_the_same_prompt_as_negative_reads_nothing_new_and_another_does(reading):
    denoiser, call, adapter = reading
    with adapter.disabled():
        bare = run(denoiser, call)
    with adapter.at(4.0, negative=told(call["encoder_hidden_states"])):
        assert torch.equal(run(denoiser, call), bare)
    other = torch.randn(ROWS, 9, 24)
    with adapter.at(4.0, negative=told(other)):
        both = run(denoiser, call)
    assert not torch.allclose(both, bare)
    with adapter.at(1.0, negative=told(other)):
        assert torch.equal(run(denoiser, call), bare)
    with adapter.at(4.0, negative=told(other[1:])):
        torch.testing.assert_close(run(denoiser, call)[1], both[1])  # each image has its own


def test_readers_learn(reading):
    denoiser, call, adapter = reading
    adapter.requires_grad_(True)
    with adapter.at(3.0, negative=told(torch.randn(ROWS, 7, 24))):
        denoiser(**call, return_dict=False)[0].square().sum().backward()
    layers = [layer for name, layer in zip(adapter.layered, adapter.layers, strict=True) if reads(name)]
    assert len(layers) == 4 and all(layer.up.grad.any() and layer.down.grad.any() for layer in layers)


@torch.no_grad()
def test_it_compiles_whole_and_once_for_all_negative_prompts(reading):
    denoiser, call, adapter = reading
    negatives = [told(torch.randn(ROWS, 7, 24)) for _ in range(3)]
    expected = []
    for negative in negatives:
        with adapter.at(4.0, negative=negative):
            expected.append(run(denoiser, call))
    torch.compiler.reset()
    counter = CompileCounter()
    compiled = torch.compile(denoiser, fullgraph=True, backend=counter)
    for negative, prediction in zip(negatives, expected, strict=True):
        adapter.set(4.0, negative=negative)
        torch.testing.assert_close(run(compiled, call), prediction, rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1
    torch.compiler.reset()


@torch.no_grad()
def test_detaching_leaves_the_base_as_it_was(reading):
    denoiser, call, adapter = reading
    before = copy.deepcopy(denoiser.state_dict())
    with adapter.disabled():
        bare = run(denoiser, call)
    adapter.detach()
    assert torch.equal(run(denoiser, call), bare)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())
    assert not any(module._forward_hooks for module in denoiser.modules())
    adapter.attach(denoiser)
