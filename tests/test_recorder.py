"""Recording: what is recorded is what the teacher decided, and the same however the work was cut."""

import copy
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.case import build
from zoo import message_of, pipeline

from guidefold.config import TrajectoryConfig
from guidefold.denoiser import predict
from guidefold.distillation.run import record
from guidefold.errors import InputError, ModelError, StoreError
from guidefold.guidance import classifier_free
from guidefold.trajectories.identity import fingerprint
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of
from guidefold.trajectories.store import SHARED, Store

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car", ""]
CONFIG = TrajectoryConfig(trajectories=6, sampling_steps=4, keep=2, record_batch=2, shard=2, scale_max=6.0)


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def recorder(pipe) -> Recorder:
    return Recorder(pipe, PROMPTS, CONFIG)


@pytest.fixture(scope="module")
def states(recorder):
    return recorder.states([0, 1], keep_all=True)


@pytest.fixture(scope="module")
def whole(pipe, tmp_path_factory) -> Store:
    """Return a store that was recorded without interruption."""
    return record(pipe, PROMPTS, tmp_path_factory.mktemp("whole"), CONFIG)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@torch.no_grad()
def test_replayed_inputs_give_the_recorded_prediction(pipe, recorder, states):
    replayed = predict(pipe.unet, inputs_of(states), recorder.static)
    energy = (replayed - states["pred_guided"]).square().flatten(1).sum(1)
    torch.testing.assert_close(energy, states["energy"], rtol=1e-4, atol=1e-4)
    assert "pred_cond" not in states and states["energy"].shape == (len(states["step"]),)


@torch.no_grad()
def test_the_guided_prediction_is_that_of_a_doubled_call(pipe, recorder, states):
    inputs = inputs_of(states)
    empty = pipe.encode_prompt("", torch.device("cpu"), 1, False)[0].expand_as(inputs["encoder_hidden_states"])
    pred_uncond = predict(pipe.unet, {**inputs, "encoder_hidden_states": empty}, recorder.static)
    pred_cond = predict(pipe.unet, inputs, recorder.static)
    guided = classifier_free(pred_cond, pred_uncond, states["guidance_scale"])
    torch.testing.assert_close(states["pred_guided"], guided, rtol=1e-3, atol=1e-3)


def test_the_recorded_trajectory_is_the_one_of_a_plain_guided_run(pipe, recorder, states):
    seen = []

    def callback(_pipe, step, timestep, tensors):
        seen.append(tensors["latents"][0].clone())
        return tensors

    generator = torch.Generator().manual_seed(_draw(recorder, 0).seed)
    call = dict(num_inference_steps=4, output_type="latent", generator=generator, callback_on_step_end=callback)
    pipe(_draw(recorder, 0).prompt, guidance_scale=_draw(recorder, 0).guidance_scale, **call)
    torch.testing.assert_close(states["call.sample"][1:4], torch.stack(seen[:3]), rtol=1e-3, atol=1e-3)


def _draw(recorder, index):
    from guidefold.trajectories.conditions import draw

    return draw(recorder.config, recorder.conditions, index)


def test_scales_side_by_side_are_scales_alone(recorder, states):
    assert states["guidance_scale"].unique().numel() == 2
    for index in (0, 1):
        alone, rows = recorder.states([index], keep_all=True), states["trajectory"] == index
        for name in states:
            torch.testing.assert_close(alone[name], states[name][rows], rtol=1e-3, atol=1e-3)


def test_kept_steps_are_rows_of_all_steps(recorder, states):
    kept = recorder.states([0, 1])
    assert kept["trajectory"].tolist() == [0, 0, 1, 1]
    rows = [int(i * 4 + step) for i, step in zip(kept["trajectory"], kept["step"], strict=True)]
    for name in kept:
        assert torch.equal(kept[name], states[name][rows]), name


def test_recording_is_deterministic_and_leaves_the_pipeline_alone(pipe, states):
    state, random = copy.deepcopy(pipe.unet.state_dict()), torch.get_rng_state()
    step, attributes = type(pipe.scheduler).step, set(vars(pipe.unet))
    again = Recorder(pipe, PROMPTS, CONFIG).states([0, 1], keep_all=True)
    assert all(torch.equal(again[name], value) for name, value in states.items())
    assert type(pipe.scheduler).step is step and set(vars(pipe.unet)) == attributes
    assert all(torch.equal(value, state[name]) for name, value in pipe.unet.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.equal(Recorder(pipe, PROMPTS, seeded(1)).states([0])["call.sample"], states["call.sample"][:2])


def seeded(seed: int) -> TrajectoryConfig:
    return TrajectoryConfig.from_dict({**CONFIG.to_dict(), "seed": seed})


def test_a_failing_teacher_leaves_the_pipeline_alone():
    pipe = pipeline()
    recorder, step = Recorder(pipe, PROMPTS, CONFIG), type(pipe.scheduler).step
    handle = pipe.unet.conv_out.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recorder.states([0])
    handle.remove()
    assert type(pipe.scheduler).step is step and "forward" not in vars(pipe.unet)
    assert recorder.states([0])["pred_guided"].isfinite().all()


def test_what_trajectories_share_is_kept_once(whole):
    shard = whole.read_shard(0)
    assert f"{SHARED}call.encoder_hidden_states" in shard and f"{SHARED}guidance_scale" in shard
    assert len(shard["call.sample"]) == 4 and len(shard[f"{SHARED}guidance_scale"]) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from test_recorder import CONFIG, PROMPTS, pipeline, record

replace, calls = Path.replace, []


def replace_or_die(path, target):
    calls.append(path)
    if len(calls) == 3:  # the index, a shard, and in the middle of the next
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)


Path.replace = replace_or_die
record(pipeline(), PROMPTS, sys.argv[1], CONFIG)
"""


def test_killed_then_resumed_is_the_same_store(pipe, whole, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Store.open(tmp_path).missing_shards() == [1, 2]
    assert record(pipe, PROMPTS, tmp_path, CONFIG).complete
    assert contents(tmp_path) == contents(whole.folder)


def test_a_finished_store_is_left_as_it_is(pipe, whole, monkeypatch):
    before = contents(whole.folder)
    monkeypatch.setattr(Recorder, "shard", lambda *_: pytest.fail("recorded again"))
    record(pipe, PROMPTS, whole.folder, CONFIG)
    assert contents(whole.folder) == before


def test_the_store_of_another_model_prompts_or_settings_is_refused(pipe, whole):
    other, before = pipeline(), contents(whole.folder)
    with torch.no_grad():
        next(other.unet.parameters()).add_(1)
    assert fingerprint(other.unet) != fingerprint(pipe.unet)
    told = message_of(StoreError, lambda: record(other, PROMPTS, whole.folder, CONFIG))
    assert "was made with model = " in told and "or a new folder" in told
    told = message_of(StoreError, lambda: record(pipe, PROMPTS, whole.folder, seeded(7)))
    assert "was made with config.seed = 0, this run has config.seed = 7" in told
    told = message_of(StoreError, lambda: record(pipe, PROMPTS[:4], whole.folder, CONFIG))
    assert "was made with conditions = 5, this run has conditions = 4" in told
    told = message_of(StoreError, lambda: record(pipe, [*PROMPTS[:4], "a bird"], whole.folder, CONFIG))
    assert "conditions_sha256" in told
    told = message_of(StoreError, lambda: record(pipe, PROMPTS, whole.folder, CONFIG, height=16, width=16))
    assert "was made with arguments" in told
    assert contents(whole.folder) == before


class Unguided(StableDiffusionPipeline):
    def __call__(self, prompt, num_inference_steps=3):
        return prompt


class Unprompted(StableDiffusionPipeline):
    def __call__(self, picture, guidance_scale=4.0):
        return picture


def stepping(change):
    """Return a pipeline that changes what its denoiser said before its scheduler hears of it."""

    class Stepping(StableDiffusionPipeline):
        def __call__(self, *args, **kwargs):
            step = self.scheduler.step
            self.scheduler.step = lambda model_output, *rest, **more: step(change(model_output), *rest, **more)
            try:
                return super().__call__(*args, **kwargs)
            finally:
                del self.scheduler.step

        __call__.__signature__ = inspect.signature(StableDiffusionPipeline.__call__)

    return Stepping


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Unguided, "Unguided.__call__ has no guidance argument"),
        (Unprompted, "takes neither a prompt nor class_labels"),
        (stepping(torch.tanh), "Stepping changes the denoiser's output on the way to its scheduler"),
    ],
)
def test_a_pipeline_that_cannot_be_recorded_is_refused(kind, told, tmp_path):
    pipe = pipeline()
    pipe.__class__ = kind
    assert told in message_of(ModelError, lambda: record(pipe, PROMPTS, tmp_path / "store", CONFIG))
    assert not (tmp_path / "store").exists()


def test_a_denoiser_whose_guidance_is_folded_already_is_refused():
    pipe = pipeline(time_cond_proj_dim=8)
    told = message_of(ModelError, lambda: Recorder(pipe, PROMPTS, CONFIG))
    assert "as often without guidance as with guidance_scale=" in told and "a guidance-distilled model" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"guidance_scale": 1.0}, "guidance_scale is set by guidefold; leave it out"),
        ({"generator": None}, "generator is set by guidefold"),
        ({"num_images_per_prompt": 2}, "num_images_per_prompt is set by guidefold; leave it out"),
        ({"hight": 16}, "hight is none of StableDiffusionPipeline.__call__"),
    ],
)
def test_arguments_that_are_not_the_users_are_refused(pipe, arguments, told):
    assert told in message_of(InputError, lambda: Recorder(pipe, PROMPTS, CONFIG, **arguments))


def test_what_the_pipeline_itself_refuses_is_one_line(pipe):
    told = message_of(ModelError, lambda: Recorder(pipe, PROMPTS, CONFIG, negative_prompt="blurry"))
    assert told.startswith("StableDiffusionPipeline fails with these arguments (TypeError: `negative_prompt`")


def test_arguments_reach_the_pipeline(pipe):
    assert Recorder(pipe, PROMPTS, CONFIG, height=16, width=8).states([0])["call.sample"].shape == (2, 4, 8, 4)


def test_no_conditions_are_refused(pipe, tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "there are no conditions to record" in message_of(InputError, lambda: record(pipe, [], tmp_path / "s"))
    assert "holds no prompts" in message_of(InputError, lambda: record(pipe, tmp_path / "empty.txt", tmp_path / "s"))
    assert "there is no file" in message_of(InputError, lambda: record(pipe, tmp_path / "none.txt", tmp_path / "s"))
    told = message_of(InputError, lambda: record(pipe, ["a fox", None], tmp_path / "s"))
    assert "a condition is None; give texts, or class labels that are whole numbers" in told
    assert not (tmp_path / "s").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_class_labels_are_numbers_or_their_texts(tmp_path):
    pipe = build("DiTPipeline").pipe
    config = TrajectoryConfig(trajectories=2, sampling_steps=2, keep=1, record_batch=1, shard=1)
    stores = [record(pipe, labels, tmp_path / name, config) for name, labels in (("a", [1, 2]), ("b", ["1", "2"]))]
    assert contents(stores[0].folder) == contents(stores[1].folder)


def test_a_teacher_that_overflows_is_told():
    pipe = pipeline()
    recorder = Recorder(pipe, PROMPTS, CONFIG)
    with torch.no_grad():
        pipe.unet.conv_out.bias.fill_(float("nan"))
    assert "not finite" in message_of(ModelError, lambda: recorder.states([0]))
