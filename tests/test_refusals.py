"""What attaching and calling refuse: one clear line, and nothing changed."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from sampling import PROMPTS, build, sample, snapshot
from torch import nn
from zoo import message_of, pipeline

from guidefold.config import TrajectoryConfig
from guidefold.denoiser import predict
from guidefold.errors import InputError, ModelError
from guidefold.keeping import Adapter
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of


def refused(pipe, adapter, act=None) -> str:
    """Return why attaching is refused, after making sure that it changed nothing."""
    before = snapshot(pipe)
    message = message_of(ModelError, act or (lambda: adapter.attach(pipe)))
    assert snapshot(pipe) == before
    return message


def test_a_second_adapter_is_refused(pipe, adapter):
    assert "attached already; call detach() first" in refused(pipe, adapter)
    second = build(pipeline())
    assert "has another adapter attached; detach that one first" in refused(pipe, second)
    assert "has another adapter attached" in message_of(ModelError, lambda: second.attach(pipe.unet))
    other = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    assert "has another adapter attached" in refused(other, second)
    assert not second.attached
    adapter.detach()
    second.attach(pipe)


def test_a_compiled_denoiser_is_refused():
    pipe = pipeline()
    adapter, plain = build(pipe), pipe.unet
    pipe.unet = torch.compile(plain, backend="eager")
    assert "attach first, then torch.compile" in refused(pipe, adapter)
    pipe.unet = plain
    plain.mid_block = torch.compile(plain.mid_block, backend="eager")
    assert "is compiled" in refused(pipe, adapter)
    pipe = pipeline()
    pipe.unet.compile(backend="eager")
    assert "UNet2DConditionModel is compiled" in refused(pipe, adapter)
    assert not adapter.attached


def test_another_base_model_is_refused(pipe):
    adapter = build(pipe)
    adapter.trained = {"base": "me/tiny"}
    wider = pipeline(attention_head_dim=2, block_out_channels=(16, 48))
    message = refused(wider, adapter)
    assert "for another base model" in message and "has widths" in message and "trained on me/tiny" in message
    assert "has no layer" in refused(pipeline(mid_block_type=None), adapter)
    assert "str has no denoiser" in message_of(ModelError, lambda: adapter.attach("a folder"))
    adapter.attach(pipe)


class Unguided(StableDiffusionPipeline):
    def __call__(self, prompt, num_inference_steps=3):
        return prompt


class TwiceGuided(StableDiffusionPipeline):
    def __call__(self, prompt, prior_guidance_scale=1.0, true_cfg_scale=1.0):
        return prompt


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Unguided, "no guidance argument"), (TwiceGuided, "the guidance arguments prior_guidance_scale, true_cfg_scale")],
)
def test_a_pipeline_without_one_guidance_argument_is_refused(pipe, kind, told):
    adapter = build(pipe)
    pipe.__class__ = kind
    assert told in refused(pipe, adapter)
    assert not adapter.attached


@pytest.mark.parametrize(
    ("design", "patterns", "told"),
    [
        ("film", ("to_x",), "match nothing in UNet2DConditionModel; for instance"),
        ("offset", "(", "is no regular expression"),
        ("film", "attn1", "but this design adapts linear layers"),
        ("offset", "conv1", "but this design adapts attentions and linear layers; film with a rank takes convolutions"),
    ],
)
def test_targets_that_fit_nothing_are_refused(pipe, design, patterns, told):
    assert told in message_of(ModelError, lambda: build(pipe, design=design, target_modules=patterns))


@pytest.mark.parametrize("patterns", ["to_q", ("to_q", "to_k"), r".*attn2\.to_[qk]"])
def test_targets_are_chosen_by_suffix_or_regex(pipe, patterns):
    adapter = build(pipe, target_modules=patterns)
    *chosen, output = adapter.shapes
    assert chosen and all(name.rpartition(".")[2] in ("to_q", "to_k") for name in chosen) and output == "conv_out"


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (float("nan"), "give a finite number"),
        (float("inf"), "give a finite number"),
        ("7.5", "give a number, or one number per image"),
        ([2.0, "x"], "give a number, or one number per image"),
        (None, "give a number, or one number per image"),
        ([], "give a finite number"),
        ([2.0, 3.0, 4.0], "3 guidance scales for 2 images; give one, or one per image"),
    ],
)
def test_a_bad_scale_is_refused_and_leaves_nothing_behind(pipe, adapter, scale, told):
    before = sample(pipe)
    assert told in message_of(InputError, lambda: sample(pipe, PROMPTS, scale))
    assert adapter.guidance_scale is None
    assert torch.equal(sample(pipe), before)


def test_a_scale_below_one_is_refused_where_it_is_set(pipe, adapter):
    with pytest.raises(InputError, match=r"guidance_scale is 0\.5; give at least 1"):
        adapter.guidance_scale = 0.5


def test_a_bare_denoiser_needs_a_scale(pipe):
    adapter, recorder = build(pipe), Recorder(pipe, PROMPTS, TrajectoryConfig(sampling_steps=2, keep=1))
    inputs = inputs_of(recorder.states([0]))
    adapter.attach(pipe.unet)
    told = message_of(InputError, lambda: predict(pipe.unet, inputs, recorder.static))
    assert "set adapter.guidance_scale, or call the pipeline" in told


class Model(nn.Module):
    def forward(self, x):
        return x


def test_a_model_without_attention_is_refused(pipe):
    spec = build(pipe).spec
    told = message_of(ModelError, lambda: Adapter.build(Model(), spec))
    assert "Model has no norms, modulations or time embedding to adapt" in told
