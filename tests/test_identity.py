"""A store is gone on with by the teacher that it was begun with: pictures, ControlNets and guiders are part of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance, SkipLayerGuidance
from diffusers.hooks import LayerSkipConfig
from PIL import Image
from support.case import build
from test_dials import fixed
from zoo import message_of, pipeline

from guidefold.config import TrajectoryConfig
from guidefold.distillation.run import record
from guidefold.errors import StoreError
from guidefold.trajectories.identity import guider_of, plain
from guidefold.trajectories.recorder import Recorder

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPTS = ["a red fox", "a blue cat"]
CONFIG = TrajectoryConfig(trajectories=2, sampling_steps=2, keep=1, record_batch=1, shard=1)
NUMBERS = torch.arange(12, dtype=torch.float32).reshape(2, 2, 3)
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


@pytest.mark.parametrize(
    ("value", "others"),
    [
        (NUMBERS, [NUMBERS + 1, NUMBERS.reshape(3, 4), NUMBERS.double()]),
        (NUMBERS.bfloat16(), [NUMBERS.bfloat16() + 1, NUMBERS.half()]),
        (torch.tensor(1.0), [torch.tensor(2.0)]),
        (PIXELS, [PIXELS + 1, PIXELS.reshape(3, 4), PIXELS.astype(np.int8)]),
        (np.float32(1), [np.float32(2)]),
        (Image.fromarray(PIXELS), [Image.fromarray(PIXELS + 1), Image.fromarray(PIXELS).resize((3, 2))]),
        ([NUMBERS, "a"], [[NUMBERS + 1, "a"], [NUMBERS, "b"]]),
        (LayerSkipConfig(indices=[1]), [LayerSkipConfig(indices=[2])]),
    ],
)
def test_values_are_told_apart_by_what_they_hold(value, others):
    copies = [value.clone() if isinstance(value, torch.Tensor) else value for _ in range(2)]
    assert plain({"x": copies[0]}) == plain({"x": copies[1]})
    told = [str(plain({"x": one})) for one in (value, *others)]
    assert len(set(told)) == len(told)


def test_what_json_knows_stays_and_other_objects_are_their_type():
    assert plain({"a": (1, None), "b": {"c": "d"}, "e": object()}) == {"a": [1, None], "b": {"c": "d"}, "e": "object"}
    assert plain({"device": torch.device("cpu")}) == {"device": "device"}


def test_the_header_of_a_plain_pipeline_has_nothing_new():
    header = Recorder(pipeline(), PROMPTS, CONFIG, height=16, width=16).header()
    assert header.keys() == {
        "config", "model", "pipeline", "encoders", "scheduler", "arguments", "conditions", "conditions_sha256",
        "static", "spec", "denoiser",
    }  # fmt: skip
    assert header["arguments"] == {"height": 16, "width": 16}


def test_a_store_is_not_gone_on_with_by_another_picture_or_controlnet(tmp_path):
    case = build("StableDiffusionControlNetPipeline")
    arguments = fixed(case.call)
    store = record(case.pipe, PROMPTS, tmp_path, CONFIG, **arguments)
    store.shard_path(1).unlink()  # as if killed
    before = {path.name: path.read_bytes() for path in Path(tmp_path).iterdir()}
    other = {**arguments, "image": changed(arguments["image"])}
    told = message_of(StoreError, lambda: record(case.pipe, PROMPTS, tmp_path, CONFIG, **other))
    assert "was made with arguments.image = " in told
    weight = next(case.pipe.controlnet.parameters())
    held = weight.clone()
    with torch.no_grad():
        weight.add_(1)
    told = message_of(StoreError, lambda: record(case.pipe, PROMPTS, tmp_path, CONFIG, **arguments))
    assert "was made with others.controlnet = " in told
    assert {path.name: path.read_bytes() for path in Path(tmp_path).iterdir()} == before
    with torch.no_grad():
        weight.copy_(held)
    assert record(case.pipe, PROMPTS, tmp_path, CONFIG, **arguments).complete


def changed(picture):
    return 1 - picture if isinstance(picture, torch.Tensor) else picture.point(lambda value: 255 - value)


class Guided:
    """What has a guider and nothing else."""

    def __init__(self, guider) -> None:
        self.guider = guider


def test_guiders_are_told_apart_by_all_that_is_not_drawn():
    guiders = [
        ClassifierFreeGuidance(guidance_scale=4.0),
        ClassifierFreeGuidance(guidance_scale=4.0, guidance_rescale=0.7),
        ClassifierFreeGuidance(guidance_scale=4.0, start=0.5),
        AdaptiveProjectedGuidance(guidance_scale=4.0),
        SkipLayerGuidance(skip_layer_config=LayerSkipConfig(indices=[1])),
        SkipLayerGuidance(skip_layer_config=LayerSkipConfig(indices=[0])),
    ]
    told = [str(guider_of(Guided(one), {"guidance_scale"})) for one in guiders]
    assert len(set(told)) == len(told)
    guiders[0].guidance_scale = 6.0
    assert str(guider_of(Guided(guiders[0]), {"guidance_scale"})) == told[0]
    guiders[0].guidance_rescale = 0.7  # set by hand after it was made
    assert str(guider_of(Guided(guiders[0]), {"guidance_scale"})) == told[1]


def test_the_guider_is_in_the_header():
    case = build("HunyuanVideo15Pipeline")
    header = Recorder(case.pipe, PROMPTS, CONFIG, **fixed(case.call)).header()
    assert header["guider"]["class"] == type(case.pipe.guider).__name__ and "others" not in header
    assert "guidance_scale" not in header["guider"] and "guidance_rescale" in header["guider"]
