"""Observation: what turns guidance off, what schedulers receive, and which pipelines are refused, in one line each."""

import pytest
import torch
from diffusers import DDIMScheduler
from support.case import build
from torch import nn
from zoo import pipeline, unet

from guidefold.capture import observe
from guidefold.capture.mapping import NotAffine, identity, learn_maps
from guidefold.capture.run import run
from guidefold.capture.tape import aligned, taped
from guidefold.errors import ModelError

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CALL = dict(prompt="a red fox", num_inference_steps=3, guidance_scale=5.0, output_type="latent", height=8, width=8)


class Plain:
    """A pipeline of the usual habits that is none of diffusers'."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.unet = unet().eval().requires_grad_(False)
        self.scheduler = DDIMScheduler(clip_sample=False)
        self.words = {word: torch.randn(1, 5, 24) for word in ("", "fox")}

    @torch.no_grad()
    def __call__(self, prompt="fox", num_inference_steps=3, guidance_scale=5.0, generator=None):
        latents = torch.randn(1, 4, 8, 8, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            latents = self.step(self.guided(latents, t, prompt, guidance_scale), t, latents)
        return latents

    def guided(self, latents, t, prompt, scale):
        if scale <= 1:
            return self.changed(self.unet(latents, t, self.words[prompt]).sample, latents, t)
        states = torch.cat([self.words[""], self.words[prompt]])
        uncond, cond = self.unet(torch.cat([latents] * 2), t, states, return_dict=False)[0].chunk(2)
        return self.changed(uncond + scale * (cond - uncond), latents, t)

    def changed(self, prediction, latents, t):
        return prediction

    def step(self, prediction, t, latents):
        return self.scheduler.step(prediction, t, latents, return_dict=False)[0]


class Negated(Plain):
    def changed(self, prediction, latents, t):
        return 2 - 3 * prediction


class Cached(Plain):
    def step(self, prediction, t, latents):
        latents = super().step(prediction, t, latents)
        self.unet(latents, t, self.words[""])  # an answer that nobody looks at
        return latents


class Squashed(Plain):
    def changed(self, prediction, latents, t):
        return prediction.tanh()


class Clamped(Plain):
    def changed(self, prediction, latents, t):
        return prediction.clamp(-0.1, 0.1)


class Normalised(Plain):
    def changed(self, prediction, latents, t):
        return prediction / prediction.std()


class Mixed(Plain):
    def changed(self, prediction, latents, t):
        return (prediction + self.unet(1.1 * latents, t, self.words["fox"]).sample) / 2


class Hidden(Plain):
    def step(self, prediction, t, latents):
        return latents - 0.1 * prediction


class Shortened(Plain):
    def __call__(self, prompt="fox", num_inference_steps=3, guidance_scale=5.0, generator=None):
        return super().__call__(prompt, num_inference_steps - (guidance_scale <= 1), guidance_scale, generator)


class Always(Plain):
    def guided(self, latents, t, prompt, scale):
        return super().guided(latents, t, prompt, max(scale, 1.1))


class Undialled(Plain):
    def __call__(self, prompt="fox", num_inference_steps=3, generator=None):
        return super().__call__(prompt, num_inference_steps, 5.0, generator)


class Broken(Plain):
    def step(self, prediction, t, latents):
        return super().step(prediction / 0, t, latents)


def snapshot(pipe) -> tuple:
    """Return what a run must leave as it was."""
    network = next(getattr(pipe, name) for name in ("unet", "transformer") if hasattr(pipe, name))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules()]
    processors = list(getattr(network, "attn_processors", {}).values())
    step = type(pipe.scheduler).step, "step" in vars(pipe.scheduler)
    named = [name for name in vars(pipe) if name.startswith("_progress")]
    return type(pipe), named, "forward" in vars(network), hooks, processors, step, torch.get_rng_state().tolist()


def refused(pipe, **call) -> str:
    """Return why a pipeline is refused, after making sure that it is as before."""
    before = snapshot(pipe)
    with pytest.raises(ModelError) as caught:
        observe(pipe, **call)
    assert snapshot(pipe) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (Squashed, "not affine"),
        (Clamped, "not affine"),
        (Normalised, "not affine"),
        (Mixed, "Mixed calls its denoiser several times a step, and steps by more than the last answer"),
        (Hidden, "Hidden never called the step of a scheduler of its own"),
        (Shortened, "Shortened takes 2 steps without guidance and 3 with it"),
        (Always, "as often without guidance as with guidance_scale=5"),
        (Undialled, "Undialled has no guidance argument; there is no guidance to fold"),
        (Broken, "not finite; load it in float32"),
    ],
)
def test_what_cannot_be_folded_is_refused_and_left_alone(kind, told):
    assert told in refused(kind())


def test_guidance_that_is_off_already_is_told():
    assert "guidance is off already" in refused(pipeline(), **{**CALL, "guidance_scale": 1.0})


def test_a_guidance_distilled_model_is_told():
    pipe = build("FluxPipeline").pipe
    config = {**pipe.transformer.config, "guidance_embeds": True}
    pipe.transformer = type(pipe.transformer).from_config(config).eval()
    told = refused(pipe, **CALL, max_sequence_length=24, true_cfg_scale=1.0)
    assert "as often without guidance as with true_cfg_scale=1, guidance_scale=5" in told
    assert "a guidance-distilled model" in told


@pytest.mark.parametrize(
    ("kind", "found"), [(Plain, ("identity",)), (Negated, ("scaled, negated, shifted",)), (Cached, ("identity",))]
)
def test_a_plain_object_is_observed_like_a_pipeline(kind, found):
    pipe = kind()
    before = snapshot(pipe)
    seen = observe(pipe, guidance_scale=4.0)
    assert snapshot(pipe) == before
    assert [(dial.name, dial.off) for dial in seen.switch.dials] == [("guidance_scale", 1.0)]
    assert seen.kinds() == found and seen.denoisers == ("unet",) and len(seen.targets) == 3
    assert max(seen.target_error, seen.input_error, seen.result_error) < 1e-5


@torch.no_grad()
def test_the_target_is_what_the_denoiser_would_have_to_answer():
    pipe = Negated()
    seen = observe(pipe, guidance_scale=4.0)
    for number, target in seen.targets.items():
        call = seen.bare.called[number].call.tensors
        states = [pipe.words[""], pipe.words["fox"]]
        uncond, cond = (pipe.unet(call["sample"], call["timestep"], one).sample for one in states)
        guided = (uncond + 4 * (cond - uncond)).reshape(-1)
        torch.testing.assert_close(target.answer, guided, rtol=1e-3, atol=1e-3)
        assert target.mask.all()


def test_a_run_is_a_function_of_its_call():
    pipe = pipeline()
    one, two = (run(pipe, CALL | dict(generator=torch.Generator().manual_seed(3))) for _ in range(2))
    assert torch.equal(one.result.images, two.result.images)
    assert one.rows == 2 * 3 and len(one.steps) == len(one.called) == 3
    torch.rand(1)
    assert torch.equal(run(pipe, CALL).result.images, run(pipe, CALL).result.images)


def test_forced_runs_follow_the_other_runs_trajectory():
    pipe = pipeline()
    guided, bare = run(pipe, CALL), run(pipe, {**CALL, "guidance_scale": 1.0})
    forced = run(pipe, {**CALL, "guidance_scale": 1.0}, forced=guided.steps)
    assert torch.equal(forced.result.images, guided.result.images)
    assert not torch.equal(bare.result.images, guided.result.images)
    for one, other in zip(forced.called, guided.called, strict=True):
        assert torch.equal(one.call.tensors["sample"], other.call.tensors["sample"][:1])
    assert not torch.equal(forced.steps[0].received, guided.steps[0].received)


def test_a_failing_run_leaves_nothing_behind():
    pipe = pipeline()
    before = snapshot(pipe)
    with pytest.raises(ZeroDivisionError):
        run(pipe, CALL, answer=lambda name, number, call: 1 / 0)
    assert snapshot(pipe) == before
    with pytest.raises(ZeroDivisionError), taped(pipe):
        raise ZeroDivisionError
    assert snapshot(pipe) == before


@pytest.mark.parametrize(
    ("name", "dials", "anchors", "rows", "kind"),
    [
        ("StableDiffusionPAGPipeline", {"guidance_scale": 1.0, "pag_scale": 0.0}, 2, (9, 3), "identity"),
        ("ZImagePipeline", {"guidance_scale": 0.0}, 1, (6, 3), "negated"),
        ("FluxPipeline", {"true_cfg_scale": 1.0}, 1, (6, 3), "identity"),
        ("HunyuanVideo15Pipeline", {"guidance_scale": 1.0, "guidance_rescale": 0.0}, 1, (6, 3), "identity"),
        ("StableDiffusionInstructPix2PixPipeline", {"guidance_scale": 1.0}, 1, (9, 3), "identity"),
        ("DiTPipeline", {"guidance_scale": 1.0}, 1, (6, 3), "takes 50% of the output"),
    ],
)  # fmt: skip
def test_the_switch_of_a_family_is_found(name, dials, anchors, rows, kind):
    case = build(name)
    before = snapshot(case.pipe)
    seen = observe(case.pipe, **case.call)
    assert snapshot(case.pipe) == before
    found = {dial.name: dial.off for dial in seen.switch.dials}
    assert dials.items() <= found.items() and list(found)[: len(dials)] == list(dials)
    assert seen.switch.anchors == anchors and seen.switch.guider == (name == "HunyuanVideo15Pipeline")
    assert (seen.guided.rows, seen.bare.rows) == rows and seen.kinds() == (kind,)


def images(change, size=4000, count=2):
    """Return the maps that are learnt of something that changes every answer, and an answer with its image."""
    torch.manual_seed(0)
    answer = torch.randn(size)
    maps = learn_maps(lambda fill: [change(fill(size)) for _ in range(count)], [size] * count)
    return maps, answer, change(answer)


TWIST = torch.linspace(0.5, 3, 4000)
AFFINE = {
    "identity": lambda x: x,
    "negated": lambda x: -x,
    "scaled": lambda x: 0.18 * x,
    "scaled by element": lambda x: TWIST * x,
    "shifted": lambda x: x + TWIST,
    "takes 50% of the output": lambda x: x[2000:],
    "reordered": lambda x: x.flip(0),
    "pins 25%": lambda x: torch.cat([TWIST[:1000], x[1000:]]),
    "scaled, negated, shifted, takes 25% of the output": lambda x: 1 - 2 * x.reshape(20, 200)[:, ::4],
}  # fmt: skip


def test_places_beyond_what_float32_counts_are_exact():
    size = 2**24 + 1001
    picked = torch.tensor([0, 2**24 - 1, 2**24 + 1, 2**24 + 2, 2**24 + 999, size - 1, 12_345_679])
    (learnt,) = learn_maps(lambda fill: [fill(size)[picked] * -2 + 1], [size])
    assert torch.equal(learnt.index, picked)
    assert learnt.kind() == "scaled, negated, shifted, takes 0% of the output"
    assert int(learnt.mask.sum()) == len(picked) and bool(learnt.mask[picked].all())


@pytest.mark.parametrize("kind", AFFINE)
def test_affine_maps_are_learnt_and_inverted(kind):
    maps, answer, received = images(AFFINE[kind])
    for one in maps:
        assert one.kind().startswith(kind) and one.is_identity == (kind == "identity")
        torch.testing.assert_close(one.forward(answer), received.reshape(-1), rtol=1e-4, atol=1e-4)
        back = one.backward(received, torch.full_like(answer, 7.0))
        torch.testing.assert_close(back[one.mask], answer[one.mask], rtol=1e-3, atol=1e-3)
        assert (back[~one.mask] == 7).all()


@pytest.mark.parametrize("change", [torch.tanh, torch.square, lambda x: x.cumsum(0), lambda x: x + x.flip(0)])
def test_other_maps_are_told_or_seen_to_be_wrong(change):
    try:
        maps, answer, received = images(change)
    except NotAffine:
        return
    assert not torch.allclose(maps[0].forward(answer), received, atol=1e-2)


def test_the_identity_is_one():
    like = nn.Parameter(torch.zeros(5))
    assert identity(5, like).is_identity and identity(5, like).kind() == "identity" and identity(5, like).mask.all()


def test_equal_halves_are_one_and_unequal_ones_are_none():
    guided, bare = torch.arange(6.0).reshape(2, 3), torch.zeros(1, 3)
    assert aligned(guided, bare) is None
    assert aligned(guided, torch.zeros(1, 4)) is None
    assert torch.equal(aligned(guided[:1].repeat(2, 1), bare), guided[:1])
    assert torch.equal(aligned(guided, torch.zeros(2, 3)), guided)
