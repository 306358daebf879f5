"""What a guided run has answered is not asked again without guidance, where it is the same."""

from contextlib import contextmanager

import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.case import build
from zoo import pipeline

from guidefold.capture import observe
from guidefold.capture.known import KnownAnswers, Uneven, answer_of, parts_of, piece_of
from guidefold.capture.run import run
from guidefold.config import TrajectoryConfig
from guidefold.denoiser import predict, replaced
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of

PROMPTS = ["a red fox", "a blue cat"]
CALL = dict(prompt=PROMPTS, guidance_scale=4.0, num_inference_steps=3, output_type="latent")
CONFIG = TrajectoryConfig(trajectories=2, sampling_steps=4, keep=2, record_batch=2, shard=2)


@contextmanager
def counted(module):
    """Count the rows that a denoiser computes, which hooks do not tell where it is watched."""
    rows, forward = [], module.forward

    def counting(sample, *args, **kwargs):
        rows.append(len(sample))
        return forward(sample, *args, **kwargs)

    with replaced(module, "forward", counting):
        yield rows


def test_a_run_without_guidance_computes_nothing_that_is_known():
    pipe = pipeline()
    guided = run(pipe, CALL)
    off = {**CALL, "guidance_scale": 1.0}
    computed = run(pipe, off, forced=guided.steps)
    with counted(pipe.unet) as rows:
        known = run(pipe, off, forced=guided.steps, answer=KnownAnswers(guided))
    assert rows == []
    for one, other in zip(known.steps, computed.steps, strict=True):
        torch.testing.assert_close(one.received, other.received, rtol=1e-4, atol=1e-4)
    # along its own trajectory only the first input is one that guidance has seen
    with counted(pipe.unet) as rows:
        own = run(pipe, off, answer=KnownAnswers(guided))
    assert rows == [2, 2]
    torch.testing.assert_close(own.result.images, run(pipe, off).result.images, rtol=1e-3, atol=1e-3)


def test_only_the_very_same_inputs_count():
    pipe = pipeline()
    guided = run(pipe, CALL).called[0]
    bare = run(pipe, {**CALL, "guidance_scale": 1.0}).called[0].call
    torch.testing.assert_close(answer_of(guided, bare)[0], guided.answer[0][2:])
    for name, value in bare.tensors.items():
        changed = {**bare.tensors, name: value + 1}
        assert answer_of(guided, type(bare)(**{**vars(bare), "tensors": changed})) is None
        fewer = {other: one for other, one in bare.tensors.items() if other != name}
        assert answer_of(guided, type(bare)(**{**vars(bare), "tensors": fewer})) is None
    other = {**bare.static, "return_dict": "another"}
    assert answer_of(guided, type(bare)(**{**vars(bare), "static": other})) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # diffusers' own
@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusionPAGPipeline", "FluxPipeline", "DiTPipeline", "StableDiffusionXLPipeline",
        "StableDiffusionControlNetPipeline", "ZImageControlNetPipeline",
    ],
)  # fmt: skip
def test_pipelines_know_the_answers_without_guidance(name):
    case = build(name)
    seen = observe(case.pipe, **case.call)
    assert seen.knows_bare and seen.passes == seen.guided.rows / seen.bare.rows


class Aware(StableDiffusionPipeline):
    """A pipeline whose denoiser is another one while guidance is on, and does not say so in its inputs."""

    def __call__(self, prompt=None, num_inference_steps=50, guidance_scale=7.5, generator=None, output_type="pil"):
        bias, call = self.unet.conv_out.bias, dict(generator=generator, output_type=output_type)
        bias.add_(float(guidance_scale != 1))
        try:
            return super().__call__(
                prompt, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, **call
            )
        finally:
            bias.sub_(float(guidance_scale != 1))


@torch.no_grad()
def test_a_denoiser_that_changes_with_guidance_is_asked_again():
    pipe = pipeline()
    aware = Aware(**pipe.components, requires_safety_checker=False)
    aware.set_progress_bar_config(disable=True)
    seen = observe(aware, **CALL)
    assert not seen.knows_bare and seen.passes == 3
    recorded = [Recorder(one, PROMPTS, CONFIG).states([0, 1], keep_all=True) for one in (pipe, aware)]
    first = [states["step"] == 0 for states in recorded]
    # the bias moves what guidance decides; the distance is from the answer without it
    bare = predict(pipe.unet, inputs_of(recorded[1]), Recorder(pipe, PROMPTS, CONFIG).static)
    energy = (bare - recorded[1]["pred_guided"]).square().flatten(1).sum(1)
    torch.testing.assert_close(recorded[1]["energy"], energy, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(*(one["pred_guided"][rows] for one, rows in zip(recorded, first, strict=True)), atol=1e-3)


def test_items_of_a_list_are_parts_too():
    tensors = {f"x.[{number}]": torch.full((2,), float(number)) for number in range(4)} | {"t": torch.arange(4.0)}
    like = {f"x.[{number}]": torch.zeros(2) for number in range(2)} | {"t": torch.zeros(2)}
    first, second = parts_of(tensors, like)
    assert first.keys() == second.keys() == like.keys()
    assert [float(part["x.[1]"][0]) for part in (first, second)] == [1, 3]
    assert [part["t"].tolist() for part in (first, second)] == [[0, 1], [2, 3]]
    answer = ([torch.tensor(float(number)) for number in range(4)], {3: torch.arange(4.0)})
    assert piece_of(answer, 1, 2, listed=True) == ([2, 3], {3: pytest.approx([2, 3])})
    for odd in (torch.zeros(3), torch.tensor(1.0), [torch.zeros(1)]):
        with pytest.raises(Uneven):
            piece_of(odd, 0, 2, listed=True)


def test_recording_asks_the_teacher_twice_a_step():
    pipe = pipeline()
    recorder = Recorder(pipe, PROMPTS, CONFIG)
    with counted(pipe.unet) as rows:
        known = recorder.states([0, 1])
    assert rows == [4, 4, 4, 4] and recorder.passes == 2
    recorder.knows_bare = False
    with counted(pipe.unet) as rows:
        computed = recorder.states([0, 1])
    assert rows == [4, 4, 4, 4, 2, 2, 2, 2]
    assert known.keys() == computed.keys()
    for name, value in known.items():
        torch.testing.assert_close(value, computed[name], rtol=1e-4, atol=1e-4)
