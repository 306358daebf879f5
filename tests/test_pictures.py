"""Sampling takes pipelines that make pictures, films or sounds, and tells others before they work."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.case import build
from zoo import message_of

from guidefold.capture.switch import first_dial
from guidefold.denoiser import find_denoiser
from guidefold.errors import InputError, ModelError
from guidefold.evaluation.evaluate import evaluate
from guidefold.evaluation.judge import Judge
from guidefold.evaluation.sampling import counted, sample

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_a_pipeline_that_makes_embeddings_is_refused_before_it_works():
    pipe = build("KandinskyV22PriorPipeline").pipe
    with counted(find_denoiser(pipe)) as rows:
        told = message_of(ModelError, lambda: sample(pipe, ["a fox"], "cfg", 4.0, steps=1, seed=0, adapter=None))
    assert "makes image_embeds, negative_image_embeds, not images, films or sounds" in told and not rows


@pytest.mark.parametrize("name", ["DiTPipeline", "FluxPipeline", "StableDiffusion3Pipeline"])
def test_pictures_are_tensors_of_three_colours(name):
    case = build(name)
    ours = ("prompt", "class_labels", "num_inference_steps", "generator", "output_type", first_dial(case.pipe))
    call = {key: value for key, value in case.call.items() if key not in ours}
    done = sample(case.pipe, ["3"], "cfg", 4.0, steps=1, seed=0, adapter=None, **call)
    assert done.outputs.shape[:2] == (1, 3) and 0 <= done.outputs.min() <= done.outputs.max() <= 1


@pytest.mark.parametrize("name", ["guidance_scale", "hight", "generator"])
def test_an_evaluation_refuses_what_is_not_the_users_to_give(pipe, name):
    judge = Judge(images=lambda pictures: pictures.flatten(1))
    with counted(pipe.unet) as rows:
        told = message_of(InputError, lambda: evaluate(pipe, None, ["a fox"], judge, **{name: 3}))
    assert f"the argument {name} is " in told and "leave it out" in told and not rows


@dataclass
class Unknown:
    sounds: Any


class Sounding(StableDiffusionPipeline):
    def __call__(self, prompt, guidance_scale=7.5, num_inference_steps=2, generator=None, output_type="pt"):
        return Unknown(torch.zeros(len(prompt), 5))


def test_what_a_class_does_not_tell_is_told_by_its_result(pipe):
    pipe.__class__ = Sounding
    told = message_of(ModelError, lambda: sample(pipe, ["a fox"], "cfg", 4.0, steps=1, seed=0, adapter=None))
    assert "Sounding makes Unknown, not images, films or sounds" in told
