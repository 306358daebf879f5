"""Attentions as targets: given pictures, or putting out their heads apart, they are changed as tokens are."""

import pytest
import torch
from test_laws import run
from zoo import make, shake

from guidefold.acting.shapes import shaped_like, tokens_of
from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.denoiser import read_call
from guidefold.keeping import Adapter

PICTURES = torch.randn(1, 8, 3, 5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pictures_become_tokens_and_pictures_again(layout):
    output = (PICTURES * 2).contiguous(memory_format=layout)
    inputs, tokens = tokens_of(PICTURES, output)
    assert torch.equal(inputs[0, 7], PICTURES[0, :, 1, 2]) and torch.equal(tokens, inputs * 2)
    back = shaped_like(output, PICTURES, tokens)
    assert torch.equal(back, output) and back.stride() == output.stride()


def test_heads_apart_become_tokens_and_heads_again():
    inputs, heads = torch.randn(2, 5, 8), torch.randn(2, 5, 2, 4)
    tokens = tokens_of(inputs, heads)[1]
    assert torch.equal(tokens[1, 3], heads[1, 3].flatten())
    assert torch.equal(shaped_like(heads, inputs, tokens), heads)


def test_tokens_are_left_as_they_are():
    inputs, output = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    assert tokens_of(inputs, output)[1].data_ptr() == output.data_ptr()
    assert shaped_like(output, inputs, output) is output


class Pictured(torch.nn.Module):
    """An attention that is given pictures and puts out pictures."""

    def __init__(self, attention):
        super().__init__()
        self.to_q, self.to_k, self.to_out = attention.to_q, attention.to_k, attention.to_out
        self.tokens = attention.forward

    def forward(self, hidden_states, **more):
        return as_pictures(self.tokens(as_tokens(hidden_states), **more))


class Around(torch.nn.Module):
    """What stands where the attention stood: tokens to pictures and back."""

    def __init__(self, attention):
        super().__init__()
        self.inner = Pictured(attention)

    def forward(self, hidden_states, **more):
        return as_tokens(self.inner(as_pictures(hidden_states), **more))


def as_pictures(tokens):
    return tokens.mT.unflatten(2, (4, 4))


def as_tokens(pictures):
    return pictures.flatten(2).mT


@torch.no_grad()
def test_an_attention_given_pictures_is_changed_as_one_given_tokens():
    denoiser, call = make("sd")
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    adapter = Adapter.build(denoiser, spec, AdapterConfig(design="cross_attention", rank=2, width=8))
    shake(adapter)
    adapter.attach(denoiser).guidance_scale = 4.0
    expected = run(denoiser, call)
    adapter.detach()
    block, name = denoiser.mid_block.attentions[0].transformer_blocks[0], "mid_block.attentions.0.transformer_blocks.0"
    block.attn1 = Around(block.attn1)
    shapes = {key.replace(f"{name}.attn1", f"{name}.attn1.inner"): shape for key, shape in adapter.shapes.items()}
    other = Adapter(adapter.config, adapter.spec, shapes)
    other.load_state_dict(adapter.state_dict())
    other.attach(denoiser).guidance_scale = 4.0
    torch.testing.assert_close(run(denoiser, call), expected, rtol=1e-4, atol=1e-4)
