"""Arguments that shape guidance reach the adapter, or one line says that they do not."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from sampling import FILM, PROMPTS, build, generators, sample
from support.case import Case
from test_composition import build as observed
from test_composition import looking, of
from test_composition import sample as sample_case
from zoo import pipeline, shake

from guidefold.acting.arguments import shaped
from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.distillation.run import train
from guidefold.keeping import Adapter
from guidefold.trajectories.recorder import Recorder

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def reading(pipe) -> Adapter:
    """Return an adapter that knows negative prompts."""
    spec = Recorder(pipe, PROMPTS, TrajectoryConfig(negatives=("blurry",))).spec
    adapter = Adapter.build(pipe.unet, spec, AdapterConfig(**FILM, width=8))
    shake(adapter)
    return adapter


def told(act) -> list[str]:
    """Return what guidefold warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(one.message) for one in caught if "adapter" in str(one.message)]


SKIP = dict(skip_guidance_layers=[0], skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0)
IGNORED = {  # how it was trained, what else is asked, and what is told
    "StableDiffusionInstructPix2PixPipeline": ({}, {"image_guidance_scale": 3.0}, ["image_guidance_scale 3 is"]),
    "StableDiffusion3Pipeline": ({}, SKIP, [f"{name} " for name in SKIP]),
    "StableDiffusionXLPipeline": (
        {"guidance_rescale": 0.3},
        {"guidance_rescale": 0.7},
        ["guidance_rescale 0.7 is ignored: the adapter was trained with 0.3"],
    ),
    "QwenImagePipeline": (
        {"negative_prompt": "blurry"},
        {"true_cfg_scale": 4.0},
        ["would not guide without a negative_prompt"],
    ),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_the_adapter_was_not_trained_with_is_told_in_one_line(name):
    trained, other, lines = IGNORED[name]
    case = of(name)()
    shaping = {*SKIP, "skip_layer_guidance_scale", "image_guidance_scale", "negative_prompt", "guidance_rescale"}
    case = Case(pipe=case.pipe, call={key: value for key, value in case.call.items() if key not in shaping})
    adapter, _ = observed(lambda: Case(pipe=case.pipe, call=case.call | trained))
    spec = replace(adapter.spec, dials=adapter.spec.dials[: adapter.spec.anchors])  # as trained without dials=
    adapter = Adapter(adapter.config, spec, adapter.shapes)
    known = shaped(case.pipe, trained, spec.offs)
    adapter.trained = {"arguments": {key: value for key, value in known.items() if key != "negative_prompt"}}
    adapter.attach(case.pipe)
    same = {key: value for key, value in trained.items() if key != "negative_prompt"}
    if name != "QwenImagePipeline":
        assert not told(lambda: sample_case(case, **same))
    heard = told(lambda: sample_case(case, **other))
    assert len(heard) == len(lines) and all(any(line in text for text in heard) for line in lines), heard


def test_what_guidance_was_shaped_by_is_kept_with_the_adapter(pipe, tmp_path):
    config = TrainConfig(steps=1, batch_size=1, source="online", validation=0)
    drawn = TrajectoryConfig(record_batch=1, sampling_steps=2, keep=2)
    settings = dict(adapter=AdapterConfig(**FILM, width=8), config=config, trajectory=drawn)
    made = train(pipe, tmp_path / "run", conditions=PROMPTS, **settings, guidance_rescale=0.7)
    made.attach(pipe)
    assert not told(lambda: sample(pipe, scale=4.0, guidance_rescale=0.7))
    (line,) = told(lambda: sample(pipe, scale=4.0))
    assert line.startswith("guidance_rescale 0 is ignored: the adapter was trained with 0.7")


def test_image_embeddings_may_be_doubled_for_guidance():
    (adapter, _), case = observed(looking, **FILM), looking()
    shake(adapter)
    adapter.attach(case.pipe)
    picture = sample_case(case)
    given = Case(pipe=case.pipe, call={key: value for key, value in case.call.items() if key != "ip_adapter_image"})
    doubled = case.pipe.prepare_ip_adapter_image_embeds(case.call["ip_adapter_image"], None, "cpu", 1, True)
    for embeds in (doubled, [one.chunk(2)[1] for one in doubled]):
        assert torch.equal(sample_case(given, ip_adapter_image_embeds=embeds), picture)
    single = [one.chunk(2)[1] for one in doubled]
    bare = sample_case(given, ip_adapter_image_embeds=single, guidance_scale=1.0)  # as the pipeline without guidance
    adapter.detach()
    assert torch.equal(sample_case(given, ip_adapter_image_embeds=single, guidance_scale=1.0), bare)


def test_a_scale_is_a_number_of_any_kind(pipe):
    bare = sample(pipe, scale=1.0)
    build(pipe, **FILM).attach(pipe)
    expected = sample(pipe, scale=4.0)
    for kind in (np.float32, np.float64, np.array, torch.tensor, lambda one: np.array([one])):
        assert torch.equal(sample(pipe, scale=kind(4.0)), expected)
        assert torch.equal(sample(pipe, scale=kind(0.5)), bare)


def test_there_is_one_negative_prompt_or_one_for_each_prompt(pipe):
    plain = sample(pipe, PROMPTS, negative_prompt=["blurry"] * 2)
    reading(pipe).attach(pipe)
    both = sample(pipe, PROMPTS, negative_prompt=["a blue cat", "a red fox"])
    for row, negative in enumerate(("a blue cat", "a red fox")):
        alone = sample(pipe, PROMPTS[row], seed=row, negative_prompt=negative)
        assert (alone[0] - both[row]).abs().max() < 1e-4 * both.abs().max() < plain.abs().max() * 10
    with pytest.raises(ValueError, match="there are 3 negative prompts for 2 prompts; give as many, or one text"):
        sample(pipe, PROMPTS, negative_prompt=["blurry"] * 3)


def test_pictures_are_encoded_once_though_there_is_a_negative_prompt():
    base, calls = pipeline(), []
    reading(base).attach(base)
    pipe = StableDiffusionImg2ImgPipeline(**base.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    (adapter,) = vars(base)["_guidefold"].switches
    adapter.attach(pipe)
    pipe.vae.encoder.register_forward_hook(lambda *_: calls.append("vae"))
    call = dict(image=torch.rand(1, 3, 8, 8), num_inference_steps=3, strength=1.0, output_type="latent")
    one, other = (
        pipe("a red fox", negative_prompt=text, generator=generators(0, 1), **call).images
        for text in ("", "a blue cat")
    )
    assert calls == ["vae"] * 2 and not torch.equal(one, other)
    assert "encode" not in vars(pipe.vae)
