"""Pipelines that share a denoiser, copies of one, and denoisers that are swapped: adapted, or guided as without us."""

import copy

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from sampling import STEPS, build, generators, sample
from zoo import message_of, pipeline

from guidefold.errors import ModelError


def from_picture(pipe, scale=7.5, **more):
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    call = dict(image=picture, strength=0.9, num_inference_steps=STEPS + 1, output_type="latent") | more
    return pipe("a red fox", guidance_scale=scale, generator=generators(0, 1), **call).images


@pytest.fixture
def other(pipe):
    """Return a pipeline of another kind with the same components."""
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    return other


def test_a_pipeline_that_shares_the_denoiser_is_guided_as_before(pipe, other):
    teacher, adapter = from_picture(other), build(pipe).attach(pipe)
    adapted = sample(pipe)
    assert torch.equal(from_picture(other), teacher)
    assert torch.equal(sample(pipe), adapted)
    adapter.detach()
    assert torch.equal(from_picture(other), teacher)


def test_one_adapter_serves_all_pipelines_of_a_denoiser(pipe, other):
    adapter, kind, teacher = build(pipe), type(other), from_picture(other)
    alone = from_picture(adapter.attach(other) and other)
    adapter.detach()
    adapted = sample(adapter.attach(pipe) and pipe)
    adapter.attach(other)
    assert torch.equal(from_picture(other), alone) and not torch.equal(alone, teacher)
    assert torch.equal(sample(pipe), adapted)
    for one in (pipe, other):
        assert message_of(ModelError, lambda one=one: adapter.attach(one)).startswith(
            "this adapter is attached already"
        )
    adapter.detach()
    assert type(other) is kind and torch.equal(from_picture(other), teacher)


def test_an_interrupted_call_leaves_nothing_to_other_pipelines(pipe, other):
    def stop(*_):
        raise KeyboardInterrupt

    teacher, adapter = from_picture(other), build(pipe).attach(pipe)
    adapted = sample(pipe)
    handle = pipe.unet.up_blocks[0].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        sample(pipe)
    handle.remove()
    assert torch.equal(from_picture(other), teacher)
    assert torch.equal(sample(pipe), adapted) and adapter.guidance_scale is None


def test_a_swapped_denoiser_is_guided_and_told(pipe):
    build(pipe).attach(pipe)
    torch.manual_seed(5)
    plain = pipeline()
    pipe.unet = plain.unet
    with pytest.warns(UserWarning, match="the adapter is attached to another denoiser than the pipeline's"):
        assert torch.equal(sample(pipe), sample(plain))
    made = type(pipe)(**plain.components, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    assert torch.equal(sample(made), sample(plain))  # nobody attached anything to it


def test_a_copy_outlives_the_attachment(pipe):
    teacher, adapter = sample(pipe), build(pipe).attach(pipe)
    adapted, copied = sample(pipe), copy.deepcopy(pipe)
    adapter.detach()
    adapter.attach(pipe)
    with pytest.warns(UserWarning, match="attached to another denoiser"):
        assert torch.equal(sample(copied), teacher)
    assert torch.equal(sample(pipe), adapted)
    adapter.detach()
    assert torch.equal(sample(adapter.attach(copied) and copied), adapted)
    assert torch.equal(sample(pipe), teacher)


def test_what_fails_while_attaching_leaves_the_pipeline_as_it_was(pipe, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    adapter, kind = build(pipe), type(pipe)
    with monkeypatch.context() as patch:
        patch.setattr(pipe.unet, "register_forward_hook", full)
        with pytest.raises(torch.OutOfMemoryError):
            adapter.attach(pipe)
    assert type(pipe) is kind and not adapter.attached and not pipe.unet._forward_pre_hooks
    adapter.attach(pipe)


def test_a_rescale_that_is_ignored_is_told(pipe):
    build(pipe).attach(pipe)
    plain = sample(pipe)
    with pytest.warns(UserWarning, match=r"guidance_rescale 0\.7 is ignored"):
        assert torch.equal(sample(pipe, guidance_rescale=0.7), plain)
