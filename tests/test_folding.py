"""Two forms of one adapter: written into the denoiser's parameters for a call, or hooks on its layers; equal."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers.models.attention import FeedForward
from sampling import FILM, PROMPTS, assert_close, build, generators, sample
from test_laws import build as built
from test_laws import run
from torch._dynamo.testing import CompileCounter
from zoo import ZOO


@contextmanager
def live() -> Iterator[None]:
    """Forbid the folded form for a while, as a compiler does that takes weights for constants."""
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True):
        yield


@contextmanager
def watched(denoiser) -> Iterator[list]:
    """Note at the denoiser's first layer whether layers have hooks, and whether parameters are written."""
    base, noted = weights(denoiser), []
    layers = [module for name, module in denoiser.named_modules() if name]
    first = next(module for module in layers if not list(module.children()))

    def note(*_):
        hooks = sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in layers) - 1
        noted.append((hooks, not same(base, dict(denoiser.named_parameters()))))

    handle = first.register_forward_pre_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


def weights(denoiser):
    return {name: value.detach().clone() for name, value in denoiser.named_parameters()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def alike(call):
    """Return a call of the zoo whose rows have the same prompt, timestep and class."""
    shared = {"sample", "hidden_states"}
    first = lambda value: value[:1].expand_as(value) if torch.is_tensor(value) and value.dim() else value  # noqa: E731
    plain = {key: value if key in shared else first(value) for key, value in call.items()}
    extra = plain.get("added_cond_kwargs")
    return plain | ({"added_cond_kwargs": {key: first(value) for key, value in extra.items()}} if extra else {})


@pytest.mark.parametrize("name", ZOO)
def test_folded_is_live_over_the_zoo_and_touches_no_layer(name):
    denoiser, call, adapter = built(name, "film", rank=0)
    call, before = alike(call), weights(denoiser)
    bare = run(denoiser, call)
    adapter.attach(denoiser)
    for scale in (1.0, 2.0, 7.5):
        adapter.guidance_scale = scale
        with watched(denoiser) as noted:
            folded = run(denoiser, call)
            with live():
                layered = run(denoiser, call)
        (hooks, written), (live_hooks, live_written) = noted
        assert (hooks, written) == (0, scale > 1) and live_hooks > 0 and not live_written
        assert_close(folded, layered, 1e-5)
        assert torch.equal(folded, bare) == torch.equal(layered, bare) == (scale == 1.0)
        assert same(before, dict(denoiser.named_parameters()))
    adapter.guidance_scale = [2.0, 7.5]
    with watched(denoiser) as noted:
        both = run(denoiser, call)
    assert noted[0][0] > 0 and not noted[0][1]  # rows that differ
    assert_close(both[1], folded[1], 1e-5)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, torch.OutOfMemoryError])
def test_parameters_are_the_bases_again_whatever_ends_a_call(pipe, error, monkeypatch):
    build(pipe, **FILM).attach(pipe)
    before = weights(pipe.unet)
    pipe.unet.requires_grad_(True)  # as loaded
    adapted = sample(pipe)

    def stop(*_, **__):
        raise error

    handle = pipe.unet.up_blocks[0].register_forward_pre_hook(stop)
    with pytest.raises(error):
        sample(pipe)
    handle.remove()
    assert same(before, weights(pipe.unet))
    with monkeypatch.context() as patch:  # in the middle of writing
        patch.setattr(torch, "addcmul", stop)
        with pytest.raises(error):
            sample(pipe)
    assert same(before, weights(pipe.unet)) and torch.equal(sample(pipe), adapted)


def test_a_backward_pass_after_a_folded_call_has_the_right_gradients(pipe):
    pipe.unet.requires_grad_(True)
    adapter, inputs = build(pipe, **FILM).attach(pipe), (torch.randn(1, 4, 8, 8), 500, torch.randn(1, 7, 24))

    def gradients(between):
        pipe.unet.zero_grad()
        with adapter.disabled():
            loss = pipe.unet(*inputs)[0].square().sum()
        between()
        loss.backward()
        return [parameter.grad.clone() for parameter in pipe.unet.parameters()]

    expected = gradients(lambda: None)
    found = gradients(lambda: sample(pipe))  # autograd must not take restored weights for changed ones
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_gradients_through_several_checkpointed_steps_are_those_of_each_step(pipe):
    build(pipe, **FILM).attach(pipe)

    def gradient():
        embeds = torch.randn(1, 7, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
        call = dict(num_inference_steps=3, output_type="latent", generator=generators(0, 1))
        # what `torch.no_grad` wraps: the call that keeps gradients
        type(pipe).__call__.__wrapped__(pipe, prompt_embeds=embeds, **call).images.square().sum().backward()
        return embeds.grad

    plain = gradient()
    pipe.unet.train().enable_gradient_checkpointing()
    assert plain.any() and torch.equal(gradient(), plain)


@pytest.mark.filterwarnings("ignore:There are modules in")  # diffusers tells that there are none
def test_modes_and_precisions_take_turns(pipe):
    adapter = build(pipe, **FILM).attach(pipe)
    loaded, adapted, before = {k: v.clone() for k, v in adapter.state_dict().items()}, sample(pipe), weights(pipe.unet)
    for _ in range(2):
        with torch.inference_mode(), watched(pipe.unet) as noted:
            assert torch.equal(sample(pipe), adapted)
        assert torch.equal(sample(pipe), adapted) and noted == [(0, True)] * 3
    assert same(before, weights(pipe.unet))
    pipe.to(torch.bfloat16)
    before = weights(pipe.unet)
    with watched(pipe.unet) as noted:
        half = sample(pipe)
    assert half.dtype == torch.bfloat16 and noted == [(0, True)] * 3 and same(before, weights(pipe.unet))
    with live():
        assert_close(sample(pipe).float(), half.float(), 0.1)
    # the adapter keeps its own precision, and what is saved is what was loaded
    assert all(torch.equal(value, loaded[name]) for name, value in adapter.state_dict().items())
    adapter.to(torch.bfloat16)
    assert_close(sample(pipe).float(), half.float(), 0.2)


def test_forward_chunking_changes_nothing(pipe):
    build(pipe, **FILM).attach(pipe)
    calls = ((PROMPTS[:1] * 2, 5.0), (PROMPTS, [2.0, 8.0]))
    plain = [sample(pipe, *call) for call in calls]
    blocks = [module for module in pipe.unet.modules() if hasattr(module, "set_chunk_feed_forward")]
    for block in blocks:
        block.set_chunk_feed_forward(1, dim=0)
    sizes = []
    feed = next(module for module in pipe.unet.modules() if isinstance(module, FeedForward))
    feed.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    for call, expected in zip(calls, plain, strict=True):
        assert_close(sample(pipe, *call), expected)
    assert set(sizes[:6]) == {1}  # where all images are changed alike it still saves memory
    assert all(block._chunk_size == 1 for block in blocks)


def test_a_compiled_denoiser_has_the_one_graph_of_the_bare_one():
    denoiser, call, adapter = built("dit", "film", rank=0)
    call, twin = alike(call), copy.deepcopy(denoiser)
    counters = CompileCounter(), CompileCounter()
    torch.compiler.reset()
    run(torch.compile(twin, fullgraph=True, backend=counters[0]), call)
    adapter.attach(denoiser)
    torch.compiler.reset()
    compiled = torch.compile(denoiser, fullgraph=True, backend=counters[1])
    for scale in (2.0, 7.5, 1.0):
        adapter.guidance_scale = scale
        assert_close(run(compiled, call), run(denoiser, call), 1e-5)
    torch.compiler.reset()
    assert counters[1].frame_count == 1 and counters[0].op_count == counters[1].op_count
