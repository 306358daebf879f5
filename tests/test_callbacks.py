"""Guidance that a callback changes during a call: the adapter follows, equal to the sampling loop written by hand."""

import copy

import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback
from sampling import FILM, PROMPTS, assert_close, build, generators, sample, sharing
from test_composition import build as observed
from test_composition import of
from test_composition import sample as sample_case
from zoo import pipeline, shake

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
STEPS = 4


def by_hand(adapter, prompts, scales, seed=0):
    """Return the latents of a loop that nothing of the pipeline's own call takes part in."""
    pipe = pipeline()
    adapter = copy.deepcopy(adapter).attach(pipe.unet)
    embeds, _ = pipe.encode_prompt(prompts, "cpu", 1, False)
    latents = torch.cat([torch.randn(1, 4, 8, 8, generator=one) for one in generators(seed, len(prompts))])
    pipe.scheduler.set_timesteps(len(scales))
    for timestep, scale in zip(pipe.scheduler.timesteps, scales, strict=True):
        with torch.no_grad(), adapter.at(scale):
            predicted = pipe.unet(latents, timestep, encoder_hidden_states=embeds)[0]
        latents = pipe.scheduler.step(predicted, timestep, latents).prev_sample
    return latents


@pytest.mark.parametrize("settings", [FILM, {}], ids=["folded", "live"])
@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_a_schedule_is_followed_step_by_step(pipe, settings, prompts):
    adapter, wanted, read = build(pipe, **settings).attach(pipe), [8.0, 3.5, 1.0, 5.0], []

    def schedule(pipe, step, timestep, tensors):
        read.append((pipe.guidance_scale, pipe.do_classifier_free_guidance))
        if step + 1 < STEPS:
            pipe._guidance_scale = wanted[step + 1]
        return tensors

    call = dict(num_inference_steps=STEPS, callback_on_step_end=schedule)
    for _ in range(2):  # the schedule of one call is not the next one's start
        assert_close(sample(pipe, prompts, 8.0, **call), by_hand(adapter, prompts, wanted))
    assert read == [(scale, scale > 1) for scale in wanted] * 2
    plain = sample(pipe, prompts, 8.0, num_inference_steps=STEPS)
    assert_close(plain, by_hand(adapter, prompts, [8.0] * STEPS))


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS], ids=["one", "two"])
def test_diffusers_own_cut_off_gives_the_bare_model_from_there_on(pipe, prompts):
    adapter = build(pipe, **FILM).attach(pipe)
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    found = sample(pipe, prompts, num_inference_steps=STEPS, callback_on_step_end=cut)
    assert_close(found, by_hand(adapter, prompts, [7.5, 7.5, 1.0, 1.0]))


def test_the_cut_off_of_sdxl_answers_each_call_as_the_bare_denoiser_does():
    make = of("StableDiffusionXLPipeline", num_inference_steps=STEPS)
    (adapter, _), case, calls = observed(make, **FILM), make(), []
    shake(adapter)
    adapter.attach(case.pipe)
    unet = case.pipe.unet
    note = unet.register_forward_hook(lambda _, *call: calls.append(call), with_kwargs=True)
    sample_case(case, guidance_scale=6.0, negative_prompt=None, callback_on_step_end=SDXLCFGCutoffCallback(None, 1))
    note.remove()
    for number, (args, kwargs, answer) in enumerate(calls):
        with torch.no_grad(), adapter.at(6.0 if number < 2 else 1.0):
            again = unet(*args, **kwargs)[0]
        assert_close(again, answer[0])
        assert number < 2 or torch.equal(again, answer[0])
    assert len(calls) == STEPS and {len(args[0]) for args, _, _ in calls} == {1}


def test_what_a_callback_runs_is_not_part_of_the_call(pipe):
    seen, latents, embeds = [], torch.randn(1, 4, 8, 8), torch.randn(1, 7, 24)
    with torch.no_grad():
        bare = pipe.unet(latents, 500, embeds)[0]
    adapter = build(pipe, **FILM).attach(pipe)
    inner, alone = sample(pipe, scale=3.0), sample(pipe)

    def look(pipe, step, timestep, tensors):
        seen.append(pipe.unet(latents, 500, embeds)[0])
        other = sharing(pipe)
        adapter.attach(other)
        assert torch.equal(sample(other, scale=3.0), inner)
        return tensors

    assert torch.equal(sample(pipe, callback_on_step_end=look), alone)
    assert all(torch.equal(one, bare) for one in seen) and seen


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_prompt_that_a_callback_changes_in_place_is_seen(pipe, mode):
    adapter, swapped = build(pipe, **FILM, see_condition=True).attach(pipe), {}

    def change(pipe, step, timestep, tensors):
        if step == 0:
            tensors["prompt_embeds"].mul_(-1)
        return tensors

    def replace(pipe, step, timestep, tensors):
        return {**tensors, "prompt_embeds": -tensors["prompt_embeds"]} if step == 0 else tensors

    for callback in (change, replace):
        with mode():
            more = dict(callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
            swapped[callback] = sample(pipe, **more).clone()
    assert torch.equal(swapped[change], swapped[replace])
    assert adapter.encoder.pools and not torch.equal(swapped[change], sample(pipe))
