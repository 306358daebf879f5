"""Following an adapter: the states are those of its own sampling, the answers are the teacher's at these states."""

from dataclasses import replace

import pytest
import torch
from sampling import PROMPTS, build, snapshot
from zoo import message_of, pipeline, shake

from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import predict
from guidefold.distillation.cost import recording_cost
from guidefold.distillation.run import record, train
from guidefold.errors import InputError, ModelError, StoreError
from guidefold.guidance import classifier_free
from guidefold.keeping import Adapter
from guidefold.trajectories.conditions import draw
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of

CONFIG = TrajectoryConfig(trajectories=4, sampling_steps=4, keep=2, record_batch=2, shard=2, scale_max=6.0)


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def followed(pipe, tmp_path_factory) -> TrajectoryConfig:
    """Return settings that follow an adapter on disk."""
    folder = tmp_path_factory.mktemp("adapter")
    build(pipe).save_pretrained(folder)
    return replace(CONFIG, follow=str(folder))


def own_latents(pipe, adapter: Adapter, number: int, config: TrajectoryConfig = CONFIG) -> torch.Tensor:
    """Return the latents [S, ...] that the attached adapter's sampling of a trajectory visits after its noise."""
    seen, one = [], draw(config, PROMPTS, number)

    def callback(_pipe, step, timestep, tensors):
        seen.append(tensors["latents"][0].clone())
        return tensors

    adapter.attach(pipe)
    call = dict(num_inference_steps=4, output_type="latent", callback_on_step_end=callback)
    call |= {"negative_prompt": one.negative} if config.negatives else {}
    pipe(one.prompt, guidance_scale=one.guidance_scale, generator=torch.Generator().manual_seed(one.seed), **call)
    adapter.detach()
    return torch.stack(seen)


def test_states_are_those_of_the_adapters_own_sampling(pipe, followed):
    states = Recorder(pipe, PROMPTS, followed).states([0, 1], keep_all=True)
    teachers = Recorder(pipe, PROMPTS, CONFIG).states([0, 1], keep_all=True)
    assert states["guidance_scale"].unique().numel() == 2
    for number in (0, 1):
        own = own_latents(pipe, Adapter.from_pretrained(str(followed.follow)), number)[:3]
        rows = states["call.sample"][states["trajectory"] == number][1:]
        torch.testing.assert_close(rows, own, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(rows, teachers["call.sample"][teachers["trajectory"] == number][1:], atol=1e-2)


@torch.no_grad()
def test_answers_are_the_teachers_at_these_states(pipe, followed):
    recorder = Recorder(pipe, PROMPTS, followed)
    states = recorder.states([0, 1], keep_all=True)
    inputs = inputs_of(states)
    empty = pipe.encode_prompt("", torch.device("cpu"), 1, False)[0].expand_as(inputs["encoder_hidden_states"])
    pred_cond = predict(pipe.unet, inputs, recorder.static)
    pred_uncond = predict(pipe.unet, {**inputs, "encoder_hidden_states": empty}, recorder.static)
    guided = classifier_free(pred_cond, pred_uncond, states["guidance_scale"])
    torch.testing.assert_close(states["pred_guided"], guided, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(states["energy"], (guided - pred_cond).square().flatten(1).sum(1), rtol=1e-3, atol=1e-3)


def test_negative_prompts_reach_the_adapter(pipe, tmp_path):
    config = replace(CONFIG, negatives=("blue",))
    adapter = Adapter.build(pipe.unet, Recorder(pipe, PROMPTS, config).spec, AdapterConfig(rank=2, width=8))
    shake(adapter)
    adapter.save_pretrained(tmp_path)
    states = Recorder(pipe, PROMPTS, replace(config, follow=str(tmp_path))).states([0, 1], keep_all=True)
    assert {draw(config, PROMPTS, number).negative for number in (0, 1)} == {"", "blue"}
    for number in (0, 1):
        rows = states["call.sample"][states["trajectory"] == number][1:]
        torch.testing.assert_close(rows, own_latents(pipe, adapter, number, config)[:3], rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_an_adapter_without_effect_follows_the_bare_model(pipe, tmp_path):
    recorder = Recorder(pipe, PROMPTS, CONFIG)
    Adapter.build(pipe.unet, recorder.spec).save_pretrained(tmp_path)
    states = Recorder(pipe, PROMPTS, replace(CONFIG, follow=str(tmp_path))).states([0], keep_all=True)
    pipe.scheduler.set_timesteps(4)
    bare = predict(pipe.unet, {name: value[:1] for name, value in inputs_of(states).items()}, recorder.static)
    first = pipe.scheduler.step(bare, states["call.timestep"][0], states["call.sample"][:1])
    torch.testing.assert_close(states["call.sample"][1:2], first.prev_sample, rtol=1e-3, atol=1e-3)


def test_the_pipeline_is_left_alone_and_the_store_is_the_adapters(pipe, followed, tmp_path):
    before = snapshot(pipe)
    store = record(pipe, PROMPTS, tmp_path / "store", followed)
    assert snapshot(pipe) == before and store.complete
    build(pipe, target_modules=("to_q",)).save_pretrained(str(followed.follow) + "-other")
    other = replace(followed, follow=f"{followed.follow}-other")
    told = message_of(StoreError, lambda: record(pipe, PROMPTS, tmp_path / "store", other))
    assert "follow" in told


def test_following_costs_one_pass_a_step_more(pipe, followed):
    passes = [recording_cost(Recorder(pipe, PROMPTS, config)).teacher_passes for config in (CONFIG, followed)]
    assert passes == [4 * 4 * 2, 4 * 4 * 3]


def test_what_cannot_be_followed_is_refused(pipe, followed, tmp_path):
    other = pipeline(block_out_channels=(8, 16))
    assert "for another base model" in message_of(ModelError, lambda: Recorder(other, PROMPTS, followed))
    told = message_of(InputError, lambda: Recorder(pipe, PROMPTS, replace(followed, negatives=("blue",))))
    assert "without negative prompts, and this records guidance_scale with negative prompts" in told
    missing = replace(CONFIG, follow=str(tmp_path / "none"))
    assert "no adapter at" in message_of(InputError, lambda: Recorder(pipe, PROMPTS, missing))
    online = dict(conditions=PROMPTS, config=TrainConfig(source="online", steps=1), trajectory=followed)
    told = message_of(InputError, lambda: train(pipe, tmp_path / "run", **online))
    assert "source is online; record a store that follows it" in told and not (tmp_path / "run").exists()
