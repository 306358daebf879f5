"""Negative prompts and several dials: what is recorded is what the adapter is given when the pipeline is called."""

import math

import pytest
import torch
from diffusers import StableDiffusionPipeline
from support.case import build
from test_capture import snapshot
from zoo import pipeline, shake

from guidefold.config import AdapterConfig, TrajectoryConfig
from guidefold.distillation.student import Student
from guidefold.errors import InputError, ModelError
from guidefold.keeping import Adapter
from guidefold.trajectories.conditions import draw
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import negative_of

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPTS = ["a red fox", "a blue cat"]
UGLY = "yellow car"
CONFIG = dict(trajectories=4, sampling_steps=2, keep=2, record_batch=2, shard=2, scale_max=4.0)
DRAWN = ("prompt", "negative_prompt", "num_inference_steps", "output_type")


def recorder_of(pipe, **more) -> Recorder:
    settings, call = {**CONFIG}, {}
    for name, value in more.items():
        (settings if name in TrajectoryConfig.__dataclass_fields__ else call)[name] = value
    return Recorder(pipe, PROMPTS, TrajectoryConfig(**settings), **call)


def built(recorder, seed=1) -> Adapter:
    torch.manual_seed(0)
    adapter = Adapter.build(recorder.denoiser, recorder.spec, AdapterConfig(rank=2, width=8))
    shake(adapter, seed)
    return adapter


def case_of(name, **more):
    """Return a pipeline, a recorder of it and a call of it, which is the recorder's with guidance."""
    case = build(name)
    return case.pipe, recorder_of(case.pipe, **fixed(case.call), **more), case.call


def fixed(call):
    """Return the arguments of a call that a recorder does not draw."""
    return {name: value for name, value in call.items() if name not in DRAWN and not name.endswith("_scale")}


class Conditions:
    """What an adapter's encoder was given at every call of its denoiser."""

    def __init__(self, adapter) -> None:
        self.scales, self.negatives = [], []
        adapter.encoder.register_forward_pre_hook(self.note)

    def note(self, module, args):
        scale, tensors = args
        self.scales.append(scale.clone())
        self.negatives.append({k.removeprefix("negative."): v for k, v in tensors.items() if k.startswith("negative.")})


@pytest.fixture(scope="module")
def recorder():
    return recorder_of(pipeline(), negatives=(UGLY,))


@pytest.fixture
def attached(recorder):
    adapter = built(recorder).attach(recorder.pipe)
    yield recorder.pipe, adapter
    adapter.detach()


def sample(pipe, prompt="a red fox", seed=0, **more):
    images = (1 if isinstance(prompt, str) else len(prompt)) * more.get("num_images_per_prompt", 1)
    generator = [torch.Generator().manual_seed(seed + i) for i in range(images)]
    call = dict(num_inference_steps=2, output_type="latent", guidance_scale=3.0, generator=generator)
    return pipe(prompt, **{**call, **more}).images


def given(pipe, adapter, *args, **more):
    """Return the negative prompt's conditions that an adapter was given in a call."""
    seen = Conditions(adapter)
    sample(pipe, *args, **more)
    return seen.negatives[0]["encoder_hidden_states"]


def latents(pipe, call, **more):
    """Return what a case's call gives, with other arguments."""
    result = pipe(**{**call, **more}, generator=torch.Generator().manual_seed(0))
    return result[0]


def encoded(pipe, text):
    return pipe.encode_prompt(text, torch.device("cpu"), 1, False)[0]


def test_recorded_negatives_are_those_of_the_negative_prompts(recorder):
    numbers = range(8)
    drawn = [draw(recorder.config, PROMPTS, number).negative for number in numbers]
    assert set(drawn) == {"", UGLY}
    for number in (drawn.index(""), drawn.index(UGLY)):
        states = recorder.states([number], keep_all=True)
        stored = states["negative.encoder_hidden_states"]
        assert torch.equal(stored, encoded(recorder.pipe, drawn[number]).expand_as(stored))


def test_recorded_negatives_reach_the_student(recorder):
    states, adapter = recorder.states([0, 1]), built(recorder).attach(recorder.pipe.unet)
    seen = Conditions(adapter)
    student = Student(recorder.denoiser, adapter, recorder.static)
    with torch.no_grad():
        one = student(states)
        flipped = {**states, "negative.encoder_hidden_states": -states["negative.encoder_hidden_states"]}
        other = student(flipped)
    adapter.detach()
    assert torch.equal(seen.negatives[0]["encoder_hidden_states"], negative_of(states)["encoder_hidden_states"])
    assert not torch.allclose(one, other, rtol=1e-3)


def test_at_use_the_adapter_is_given_what_was_recorded(recorder, attached):
    pipe, adapter = attached
    number = next(n for n in range(20) if draw(recorder.config, PROMPTS, n).negative)
    with adapter.disabled():
        stored = negative_of(recorder.states([number]))["encoder_hidden_states"][:1]
    assert torch.equal(given(pipe, adapter, negative_prompt=UGLY), stored)
    # texts are encoded in batches, which round differently
    torch.testing.assert_close(given(pipe, adapter, PROMPTS, negative_prompt=UGLY), stored.expand(2, -1, -1))
    assert torch.equal(given(pipe, adapter, negative_prompt_embeds=stored), stored)
    assert torch.equal(given(pipe, adapter, negative_prompt=[UGLY]), stored)
    assert torch.equal(given(pipe, adapter, num_images_per_prompt=3, negative_prompt=UGLY), stored.expand(3, -1, -1))


def test_every_image_has_its_own_negative_prompt(attached):
    pipe, adapter = attached
    wanted = torch.cat([encoded(pipe, text) for text in (UGLY, UGLY, "", "")])
    call = dict(negative_prompt=[UGLY, ""], num_images_per_prompt=2)
    torch.testing.assert_close(given(pipe, adapter, PROMPTS, **call), wanted)
    both, alone = sample(pipe, PROMPTS, negative_prompt=[UGLY, ""]), sample(pipe, PROMPTS[1], 1, negative_prompt="")
    torch.testing.assert_close(both[1], alone[0], rtol=1e-3, atol=1e-3)


def test_an_empty_negative_prompt_is_none(attached):
    pipe, _ = attached
    assert torch.equal(sample(pipe, negative_prompt=""), sample(pipe))
    assert torch.equal(sample(pipe, PROMPTS, negative_prompt=["", ""]), sample(pipe, PROMPTS))
    assert not torch.allclose(sample(pipe, negative_prompt=UGLY), sample(pipe), rtol=1e-3)


def test_the_negative_prompt_uses_no_noise_and_leaves_nothing_behind(attached):
    pipe, adapter = attached
    generator = torch.Generator().manual_seed(5)
    before, scale = snapshot(pipe), adapter.guidance_scale
    sample(pipe, generator=generator, negative_prompt=UGLY)
    assert snapshot(pipe) == before and adapter.guidance_scale is scale
    assert adapter.enabled
    used = generator.get_state()
    generator.manual_seed(5)
    with adapter.disabled():
        sample(pipe, generator=generator)
    assert torch.equal(generator.get_state(), used)
    with pytest.raises(ValueError):
        sample(pipe, PROMPTS, negative_prompt=[UGLY] * 3)
    assert snapshot(pipe) == before and adapter.enabled


def test_a_list_of_sequences_is_a_negative_prompt_and_a_dial_off_at_zero():
    pipe, recorder, call = case_of("ZImagePipeline", record_batch=1, negatives=("blurry",))
    adapter = built(recorder)
    states = recorder.states([0])
    assert recorder.spec.dials == (("guidance_scale", 0.0),) and recorder.spec.negative
    bare = latents(pipe, call, guidance_scale=0.0)
    adapter.attach(pipe)
    seen = Conditions(adapter)
    assert all(torch.equal(latents(pipe, call, guidance_scale=scale), bare) for scale in (0.0, -1.0))
    assert not torch.equal(latents(pipe, call, guidance_scale=0.5), bare)
    assert seen.scales[-1].tolist() == [1.5]
    assert seen.negatives[-1].keys() == {name.removeprefix("negative.") for name in states if "negative." in name}


def test_a_batch_of_scales_that_a_pipeline_cannot_take_is_told():
    with pytest.raises(ModelError, match="set record_batch to 1"):
        case_of("ZImagePipeline")


def test_a_batch_with_several_values_of_a_dial_is_each_of_them_alone():
    two = recorder_of(pipeline(), dials=("guidance_rescale=0:1",))
    together = two.states([0, 1], keep_all=True)
    assert together["dial.guidance_rescale"].unique().numel() == 2
    for number in (0, 1):
        alone, rows = two.states([number], keep_all=True), together["trajectory"] == number
        guidance = alone["energy"].sum().sqrt()
        assert (together["pred_guided"][rows] - alone["pred_guided"]).norm() < 1e-3 * guidance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_with_a_scale_per_image_is_recorded_in_every_dtype(dtype, seed):
    recorder = recorder_of(pipeline().to(dtype), seed=seed)
    together, alone = recorder.states([0, 1])["pred_guided"][:2], recorder.states([0])["pred_guided"]
    assert together.dtype == dtype and (together - alone).abs().max() < 0.03 * alone.abs().max()


def test_the_halves_that_a_scheduler_receives_of_a_batch_are_no_images():
    recorder = Recorder(build("DiTPipeline").pipe, ["1", "2"], TrajectoryConfig(**CONFIG))
    together = recorder.states([0, 1], keep_all=True)
    for number in (0, 1):
        alone, rows = recorder.states([number], keep_all=True), together["trajectory"] == number
        torch.testing.assert_close(together["pred_guided"][rows], alone["pred_guided"], rtol=1e-4, atol=1e-4)


class Flattened(StableDiffusionPipeline):
    """A pipeline that takes one value of a dial for all images."""

    @property
    def guidance_rescale(self):
        return float(self._guidance_rescale)


@pytest.mark.parametrize(("dtype", "seed"), [*((torch.float32, seed) for seed in range(4)), (torch.bfloat16, 1)])
def test_a_dial_that_a_batch_shares_is_refused(dtype, seed):
    pipe = pipeline().to(dtype)
    pipe.__class__ = Flattened
    assert recorder_of(pipe).images == 2
    with pytest.raises(ModelError, match="Flattened computes guidance with one scale for a whole batch; set record_ba"):
        recorder_of(pipe, dials=("guidance_rescale=0:1",), seed=seed)
    assert recorder_of(pipe, dials=("guidance_rescale=0:1",), record_batch=1).images == 1


REFUSED = [
    (InputError, dict(dials=("gidance_rescale=0:1",)), "dials has gidance_rescale, which is no further guidance scale"),
    (InputError, dict(dials=("height=8:16",)), "choose from guidance_rescale"),
    (InputError, dict(dials=("guidance_scale=2:3",)), "dials has guidance_scale, which is no further guidance scale"),
    (InputError, dict(denoiser="vae"), "does not guide vae; choose denoiser from unet"),
    (InputError, dict(negatives=(UGLY,), negative_prompt="x"), "negative_prompt is set by guidefold"),
    (InputError, dict(dials=("guidance_rescale=0:1",), guidance_rescale=0.5), "guidance_rescale is set by guidefold"),
]


@pytest.mark.parametrize(("error", "more", "told"), REFUSED)
def test_what_cannot_be_recorded_is_refused(error, more, told):
    pipe = pipeline()
    before = snapshot(pipe)
    with pytest.raises(error) as caught:
        recorder_of(pipe, **more)
    assert told in str(caught.value) and "\n" not in str(caught.value) and snapshot(pipe) == before


def test_negatives_of_a_pipeline_without_them_are_refused():
    with pytest.raises(InputError, match="DiTPipeline takes no negative prompt; leave the negative prompts out"):
        Recorder(build("DiTPipeline").pipe, ["1", "2"], TrajectoryConfig(**CONFIG, negatives=(UGLY,)))


def test_prompts_that_cannot_be_stored_together_are_told():
    config = TrajectoryConfig(**{**CONFIG, "record_batch": 1})
    recorder = Recorder(build("ZImagePipeline").pipe, ["a", "a blue cat"], config, height=16, width=16)
    with pytest.raises(ModelError, match=r"cap_feats.\[\*\] has another length for other prompts"):
        recorder.shard([0, 1])


@pytest.mark.parametrize("text", ["rescale", "rescale=", "rescale=a:b", "=1:2", "rescale=2:1", "rescale=0:inf"])
def test_bad_ranges_are_refused(text):
    with pytest.raises(InputError, match="write name=low:high"):
        TrajectoryConfig(dials=(text,))
    assert TrajectoryConfig(dials=("a=1:2", "b=3")).dial_ranges() == {"a": (1, 2), "b": (3, 3)}


def test_several_dials_are_one_column_each():
    pipe = pipeline()
    adapter = built(recorder_of(pipe, dials=("guidance_rescale=0:1",)))
    assert adapter.checked({"guidance_rescale": [0.0, 0.5], "guidance_scale": 3}).tolist() == [[3, 1], [3, 1.5]]
    assert adapter.checked(2).tolist() == [[2, 1]]
    bad = [({"rescale": 1}, "no dial rescale"), ({"guidance_rescale": -1}, "give at least 0"), (math.nan, "finite")]
    bad += [({"guidance_scale": [2, 3], "guidance_rescale": [0, 0, 0]}, "2 of guidance_scale, 3 of guidance_rescale")]
    for value, told in bad:
        with pytest.raises(InputError, match=told):
            adapter.guidance_scale = value
    assert adapter.guidance_scale is None
    adapter.attach(pipe)
    seen = Conditions(adapter)
    sample(pipe, PROMPTS, guidance_scale=[2.0, 3.0], guidance_rescale=0.5)
    assert seen.scales[0].tolist() == [[2.0, 1.5], [3.0, 1.5]] and adapter.guidance_scale is None
