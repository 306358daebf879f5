"""What a pipeline does with an adapter attached."""

import copy
import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from sampling import PROMPTS, STEPS, build, generators, sample, snapshot
from zoo import message_of, pipeline

from guidefold.config import TrajectoryConfig
from guidefold.denoiser import predict
from guidefold.errors import ModelError
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of


@contextmanager
def batches(unet) -> Iterator[list[int]]:
    """List the batch size of every call of a denoiser."""
    sizes = []
    handle = unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    try:
        yield sizes
    finally:
        handle.remove()


def test_one_pass_a_step_and_no_doubled_batch(pipe, adapter):
    with batches(pipe.unet) as sizes:
        sample(pipe, PROMPTS)
    assert sizes == [2] * STEPS


def test_the_dial_works(pipe, adapter):
    low, high = sample(pipe, scale=2.0), sample(pipe, scale=8.0)
    assert low.isfinite().all() and not torch.equal(low, high)
    assert torch.equal(sample(pipe, scale=2.0), low)


def test_one_scale_per_image_is_one_call_per_scale(pipe, adapter):
    for scales in ([2.0, 8.0], (2, 8), torch.tensor([2.0, 8.0]), np.array([2.0, 8.0])):
        both = sample(pipe, PROMPTS, scales)
        for row, scale in enumerate((2.0, 8.0)):
            torch.testing.assert_close(both[row], sample(pipe, PROMPTS[row], scale, seed=row)[0], rtol=1e-3, atol=1e-3)


def test_images_per_prompt_share_their_prompts_scale(pipe, adapter):
    images = sample(pipe, PROMPTS, [2.0, 8.0], num_images_per_prompt=2)
    alone = sample(pipe, PROMPTS[1], 8.0, seed=2, num_images_per_prompt=2)
    assert len(images) == 4
    torch.testing.assert_close(images[2:], alone, rtol=1e-3, atol=1e-3)


def test_the_other_arguments_still_work(pipe, adapter):
    seen = []

    def callback(_pipe, step, timestep, tensors):
        seen.append((step, tensors["latents"].shape))
        return tensors

    call = dict(num_inference_steps=STEPS, guidance_scale=4.0, height=8, width=8)
    image = pipe("a red fox", callback_on_step_end=callback, **call).images[0]
    assert image.size == (8, 8) and len(seen) == STEPS
    images, _ = pipe("a red fox", return_dict=False, output_type="np", **call)
    assert images.shape == (1, 8, 8, 3)
    assert pipe(PROMPTS, output_type="pt", **call).images.shape == (2, 3, 8, 8)
    # as the third positional argument comes the height: positions stay what they were
    assert pipe("a red fox", 8, 8, STEPS, None, None, 4.0, output_type="np").images.shape == (1, 8, 8, 3)


def test_the_default_scale_of_the_pipeline_is_handed_over(pipe, adapter):
    default = inspect.signature(pipe.__call__).parameters["guidance_scale"].default
    images = pipe("a red fox", num_inference_steps=STEPS, output_type="latent", generator=generators(0, 1)).images
    assert torch.equal(images, sample(pipe, scale=default))


@pytest.mark.parametrize("scale", [1.0, 1, 0.0, -3.0, [1.0], torch.tensor([0.5])])
def test_without_guidance_it_is_the_bare_model_bit_for_bit(pipe, scale):
    bare = sample(pipe, scale=1.0)
    build(pipe).attach(pipe)
    assert torch.equal(sample(pipe, scale=scale), bare)


def test_disabled_is_the_teacher_bit_for_bit(pipe):
    teacher = sample(pipe, PROMPTS)
    adapter = build(pipe).attach(pipe)
    assert not torch.equal(sample(pipe, PROMPTS), teacher)
    with adapter.disabled(), batches(pipe.unet) as sizes:
        assert torch.equal(sample(pipe, PROMPTS), teacher)
        assert sizes == [4] * STEPS
    with pytest.raises(ZeroDivisionError), adapter.disabled():
        raise ZeroDivisionError
    assert adapter.enabled


@pytest.mark.parametrize("design", ["offset", "cross_attention"])
def test_detach_undoes_attach(pipe, design):
    teacher, before, state = sample(pipe), snapshot(pipe), copy.deepcopy(pipe.unet.state_dict())
    adapter = build(pipe, design=design)
    adapter.attach(pipe)
    assert list(pipe.unet.state_dict()) == list(state)
    adapted = sample(pipe)
    adapter.detach()
    assert snapshot(pipe) == before
    assert torch.equal(sample(pipe), teacher)
    assert all(torch.equal(value, state[key]) for key, value in pipe.unet.state_dict().items())
    adapter.attach(pipe)
    assert torch.equal(sample(pipe), adapted)
    adapter.detach()
    assert "is not attached" in message_of(ModelError, adapter.detach)


def test_an_attached_pipeline_is_saved_as_if_it_were_bare(tmp_path):
    pipe = pipeline()
    pipe.save_pretrained(tmp_path / "bare")
    build(pipe).attach(pipe)
    assert type(pipe).__name__ == "StableDiffusionPipeline" and isinstance(pipe, StableDiffusionPipeline)
    pipe.save_pretrained(tmp_path / "attached")
    bare, attached = (json.loads((tmp_path / name / "model_index.json").read_text()) for name in ("bare", "attached"))
    assert attached == bare
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("bare", "attached")]
    assert files[0] == files[1]
    weights = [(tmp_path / n / "unet/diffusion_pytorch_model.safetensors").read_bytes() for n in ("bare", "attached")]
    assert weights[0] == weights[1]


def test_a_copied_pipeline_shares_the_adapter(pipe):
    teacher = sample(pipe)
    adapter = build(pipe).attach(pipe)
    adapted, copied = sample(pipe), copy.deepcopy(pipe)
    assert torch.equal(sample(copied), adapted)
    assert torch.equal(sample(pipe), adapted)
    with adapter.disabled():
        assert torch.equal(sample(copied), teacher)
    assert "another adapter" in message_of(ModelError, lambda: build(pipeline()).attach(copied))
    adapter.detach()
    assert torch.equal(sample(copied), teacher)
    assert torch.equal(sample(pipe), teacher)


def test_a_copied_adapter_is_attached_to_nothing(pipe, adapter):
    adapted, second = sample(pipe), copy.deepcopy(adapter)
    assert not second.attached
    adapter.detach()
    assert torch.equal(sample(second.attach(pipe) and pipe), adapted)


def test_scales_outside_the_trained_range_warn(pipe, adapter):
    adapter.trained = {"scale_min": 1.5, "scale_max": 9.0}
    for scale in (1.0, 1.5, 9.0):
        sample(pipe, scale=scale)
    for scale in (1.2, 12.0):
        with pytest.warns(UserWarning, match=f"guidance_scale {scale:g} is outside 1.5 to 9, which"):
            sample(pipe, scale=scale)


def test_negative_prompts_warn_and_are_ignored(pipe, adapter):
    plain = sample(pipe)
    with pytest.warns(UserWarning, match="negative_prompt is ignored"):
        assert torch.equal(sample(pipe, negative_prompt="a blue cat"), plain)
    embeds, _ = pipe.encode_prompt("a blue cat", torch.device("cpu"), 1, False)
    with pytest.warns(UserWarning, match="negative_prompt_embeds is ignored"):
        assert torch.equal(sample(pipe, negative_prompt_embeds=embeds), plain)
    assert torch.equal(sample(pipe, negative_prompt=""), plain)


def add_lora(pipe) -> None:
    torch.manual_seed(3)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))


def test_lora_before_or_after_attaching_is_the_same(pipe):
    adapter = build(pipe).attach(pipe)
    without = sample(pipe)
    add_lora(pipe)
    after = sample(pipe)
    assert not torch.allclose(after, without, rtol=1e-3)
    adapter.detach()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())
    adapter.attach(pipe)
    torch.testing.assert_close(sample(pipe), after, rtol=1e-3, atol=1e-3)
    with adapter.disabled():
        built_after = build(pipe)
    assert list(built_after.shapes.items()) == list(adapter.shapes.items())
    with adapter.disabled():
        teacher = sample(pipe)
    adapter.detach()
    assert torch.equal(sample(pipe), teacher)


def test_gradient_checkpointing_gives_the_same_gradients(pipe):
    adapter, recorder = build(pipe), Recorder(pipe, PROMPTS, TrajectoryConfig(sampling_steps=2, keep=2))
    inputs, unet = inputs_of(recorder.states([0, 1])), pipe.unet.train()
    adapter.attach(unet).guidance_scale = 4.0

    def gradients():
        adapter.zero_grad()
        predict(unet, inputs, recorder.static).square().mean().backward()
        return [parameter.grad.clone() for parameter in adapter.parameters()]

    plain = gradients()
    unet.enable_gradient_checkpointing()
    for a, b in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(a, b)
