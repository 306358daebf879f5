"""What is observed of a pipeline is enough: in the precision it computes in, and for as many steps as it takes."""

import pytest
import torch
from support.case import build
from support.parts import photo
from zoo import message_of, pipeline

from guidefold import commands, models
from guidefold.capture import observe
from guidefold.capture.observe import enough_steps
from guidefold.config import ModelConfig, TrajectoryConfig
from guidefold.errors import ModelError
from guidefold.trajectories.recorder import Recorder

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("name", ["CogVideoXPipeline", "LTXPipeline"])
def test_a_pipeline_that_upcasts_before_its_scheduler_is_held_to_its_denoisers_precision(name):
    case = build(name)
    case.pipe.to(torch.bfloat16)
    seen = observe(case.pipe, **case.call)
    assert seen.guided.steps[0].received.dtype == torch.float32 and seen.dtype == torch.bfloat16
    assert seen.result_error < 5e-2
    case.pipe.to(torch.float32)
    seen = observe(case.pipe, **case.call)
    assert seen.dtype == torch.float32 and seen.result_error < 1e-3


PROMPTS = ["a red fox", "a blue cat"]


def edit(strength, steps=10) -> Recorder:
    """Return a recorder of a pipeline that edits a picture: of its steps it takes the last ones only."""
    config = TrajectoryConfig(trajectories=4, sampling_steps=steps, keep=2, record_batch=2, shard=2)
    pipe = build("StableDiffusionImg2ImgPipeline").pipe
    return Recorder(pipe, PROMPTS, config, image=photo(), strength=strength)


@pytest.mark.parametrize(("strength", "few", "taken"), [(0.4, 8, 4), (0.8, 4, 8), (1.0, 2, 10), (0.15, 10, 1)])
def test_as_many_steps_are_observed_as_leave_two(strength, few, taken):
    recorder = edit(strength)
    assert recorder.few == few
    assert recorder.states([0, 1], keep_all=True)["step"].tolist() == [*range(taken)] * 2


def test_what_a_pipeline_itself_raises_is_one_line():
    told = message_of(ModelError, lambda: edit(0.4, steps=2))
    assert told.startswith(
        "StableDiffusionImg2ImgPipeline fails with these arguments (RuntimeError: The size of tensor"
    )
    told = message_of(ModelError, lambda: edit(1.5))
    assert "(ValueError: The value of strength should in [0.0, 1.0] but is 1.5); give ones that it runs with" in told
    with pytest.raises(ModelError) as caught:
        observe(pipeline(), prompt="a red fox", height=7, width=8)
    assert isinstance(caught.value.__cause__, ValueError) and "divisible by 8 but are 7 and 8" in str(caught.value)


def test_a_run_is_not_lengthened_without_need():
    tried = []

    def call(steps):
        tried.append(steps)
        return dict(prompt="a red fox", num_inference_steps=steps, output_type="latent")

    assert enough_steps(pipeline(), call, 20) == 2 and enough_steps(pipeline(), call, 1) == 1 and tried == [2]


def test_the_command_observes_as_many_steps_as_leave_two(monkeypatch, capsys):
    monkeypatch.setattr(models, "load_pipeline", lambda *_: build("StableDiffusionImg2ImgPipeline").pipe)
    call = {"image": photo(), "strength": 0.4}
    commands.observe(
        model="", dress=ModelConfig(), call=call, prompt="a red fox", guidance_scale=5.0, device=None, dtype="float32"
    )
    assert "StableDiffusionImg2ImgPipeline can be folded" in capsys.readouterr().out
