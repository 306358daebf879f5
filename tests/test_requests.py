"""What is made for a request is freed with it; copies, pickles and further pipelines behave as the guide says."""

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from sampling import FILM, build, sample, sharing
from zoo import message_of, pipeline

from guidefold.errors import ModelError


@pytest.fixture(params=[FILM, {}], ids=["folded", "live"])
def attached(pipe, request):
    return pipe, build(pipe, **request.param).attach(pipe)


def test_a_pipeline_made_for_a_request_is_freed_with_it(attached):
    pipe, adapter = attached
    adapted = sample(pipe)
    gc.disable()
    try:
        for make in (sharing, copy.copy):
            other = make(pipe)
            if make is sharing:
                adapter.attach(other)
            assert torch.equal(sample(other), adapted)
            gone = weakref.ref(other)
            del other
            assert gone() is None  # without the garbage collector
    finally:
        gc.enable()
    denoiser = weakref.ref(copy.deepcopy(pipe.unet))
    gc.collect()
    assert denoiser() is None and len(adapter.attachment.pipes) == 1


def test_attaching_and_calling_many_times_leaks_nothing(attached):
    pipe, adapter = attached
    adapter.detach()

    def many(times):
        for _ in range(times):
            adapter.attach(pipe)
            adapter.detach()
        adapter.attach(pipe)
        for _ in range(times // 100):
            sample(pipe)
            with adapter.disabled(), adapter.at(3.0):
                pass
        adapter.detach()
        gc.collect()
        return len(gc.get_objects())

    few = many(100)
    assert many(500) - few < 50


def test_a_shallow_copy_and_a_deep_one_share_the_adapter(attached):
    pipe, adapter = attached
    adapted = sample(pipe)
    copies = [copy.copy(pipe), copy.deepcopy(pipe)]
    assert all(torch.equal(sample(one), adapted) for one in copies)
    assert copies[0].unet is pipe.unet and copies[1].unet is not pipe.unet
    with adapter.disabled():
        teacher = sample(pipe)
        assert all(torch.equal(sample(one), teacher) for one in copies)
    denoiser = copy.copy(pipe.unet)  # has the same layers
    latents, embeds = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 24)
    with torch.no_grad(), adapter.at(4.0):
        assert torch.equal(denoiser(latents, 500, embeds)[0], pipe.unet(latents, 500, embeds)[0])
    adapter.detach()
    assert all(torch.equal(sample(one), teacher) and type(one) is type(pipe) for one in copies)


def test_a_pipeline_made_from_an_attached_one_is_attached_to_nothing(attached):
    pipe, adapter = attached
    made = StableDiffusionImg2ImgPipeline.from_pipe(pipe, vae=pipe.vae)  # tiny, which diffusers does not expect
    assert type(made) is StableDiffusionImg2ImgPipeline and made.unet is pipe.unet
    rows = []
    pipe.unet.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    made.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 8, 8)
    made("a red fox", picture, num_inference_steps=2, strength=1.0, output_type="latent")
    assert rows == [2, 2]  # both passes of guidance
    adapter.attach(made)
    made("a red fox", picture, num_inference_steps=2, strength=1.0, output_type="latent")
    assert rows == [2, 2, 1, 1]


def written(model, way):
    file = io.BytesIO()
    torch.save(model, file) if way == "torch.save" else pickle.dump(model, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("way", ["torch.save", "pickle"])
def test_a_written_pipeline_comes_back_attached(attached, way):
    pipe, adapter = attached
    adapted, file = sample(pipe), written(pipe, way)
    back = torch.load(file, weights_only=False) if way == "torch.save" else pickle.load(file)
    adapter.detach()  # the other is its own
    assert torch.equal(sample(back), adapted)
    assert "has another adapter attached" in message_of(ModelError, lambda: build(pipeline()).attach(back))
    (own,) = vars(back)["_guidefold"].switches
    own.detach()
    assert torch.equal(sample(back), sample(pipe)) and type(back) is type(pipe)


@pytest.mark.parametrize("way", ["torch.save", "pickle"])
def test_a_written_denoiser_comes_back_attached(pipe, way):
    adapter = build(pipe, **FILM).attach(pipe.unet)
    adapter.guidance_scale = 5.0
    call, file = (torch.randn(1, 4, 8, 8), 500, torch.randn(1, 7, 24)), written(pipe.unet, way)
    back = torch.load(file, weights_only=False) if way == "torch.save" else pickle.load(file)
    with torch.no_grad():
        adapted = pipe.unet(*call)[0]
        adapter.detach()
        assert torch.equal(back(*call)[0], adapted) and not torch.equal(pipe.unet(*call)[0], adapted)
