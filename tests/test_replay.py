"""A recorded call is the call: keys of every kind come back, and what no record can repeat is refused when observed."""

import json

import pytest
import torch
from support.case import build
from test_calls import same
from test_capture import Plain
from torch import nn
from zoo import ZOO, make, message_of, unet

from guidefold.arguments import arguments_of, flatten, unwritten, written
from guidefold.capture import observe
from guidefold.capture.replay import Layout, images_of, replay
from guidefold.capture.tape import Called
from guidefold.denoiser import for_call, predict, prediction_of, read_call
from guidefold.errors import ModelError

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

KEYS = (
    "word", "a.b", "", "[0]", "(1)", "{2}", "x@each", "100%", "two words", "7", 7, -1, 0, True, None, 0.5, b"\x00.",
    ("a.b", 3), "%2E", "ünï", "it's", "'", '"',
)  # fmt: skip
CALL = dict(prompt="fox", num_inference_steps=3, guidance_scale=5.0)


def keyed(depth: int) -> dict:
    """Return a dictionary with a key of every kind, but those that Python takes for the same, holding more of them."""
    keys = [key for key in KEYS if key is not True]
    return {key: keyed(depth - 1) if depth and number % 5 == 0 else torch.full((2,), float(number))
            for number, key in enumerate(keys)}  # fmt: skip


def test_keys_of_every_kind_come_back():
    given = {
        "x": keyed(2),
        "y": [{0: torch.ones(2), "0": None}, ({3: {"a.b": 1}}, torch.ones(2))],
        "w": [(1, [2], {3: (), "tuple": {"dict": []}})],
        "z": {True: 1},
    }
    tensors, static = {}, {}
    for name, value in given.items():
        flatten(name, value, tensors, static)
    assert len({*tensors, *static}) == len(tensors) + len(static)
    # as a store keeps them: tensors in the order of their names, the others as JSON
    stored = json.loads(json.dumps({name: written(value) for name, value in static.items()}))
    back = arguments_of(dict(sorted(tensors.items())), {name: unwritten(value) for name, value in stored.items()})
    assert all(same(back[name], value) for name, value in given.items())


def test_a_key_that_cannot_be_read_back_is_refused():
    tensors, static = {}, {}
    flatten("x", {object: torch.ones(1)}, tensors, static)
    told = message_of(ModelError, lambda: arguments_of(tensors, static))
    assert "has the key <class 'object'>, which cannot be recorded; texts and numbers can" in told


class Keyed(nn.Module):
    """A denoiser of the zoo that also takes tensors in dictionaries with keys of several kinds, as ControlNets give."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, latents, timestep, rest, residuals):
        moved = latents + residuals[0] + residuals["deep"].get(2, 0) + residuals["a.b"][1]
        names = tuple(rest)
        return self.net(moved, timestep=timestep, **{name: rest[name] for name in names}, return_dict=False)[0]


@torch.no_grad()
@pytest.mark.parametrize("name", ZOO)
def test_a_call_recorded_and_made_again_is_answered_the_same(name):
    net, call = make(name)
    latents = call.pop("sample", None)
    latents = call.pop("hidden_states") if latents is None else latents
    steps, denoiser = [], Keyed(net)
    for number in range(2):
        residuals = {0: 0.1 * latents, "deep": {2: number * latents, 1: None}, "a.b": (None, 0.3 * latents)}
        given = dict(latents=latents, timestep=call["timestep"] - 100 * number, residuals=residuals,
                     rest={key: value for key, value in call.items() if key != "timestep"})  # fmt: skip
        answer = denoiser(**given)
        steps.append(Called(denoiser="net", call=read_call(denoiser, (), given), answer=answer))
    rows = len(latents)
    found = replay(denoiser, steps, Layout(images=rows), 1e-4)
    assert found.error < 1e-4 and not found.left_out
    split = steps[1].call.by_image(rows)
    stored, static = dict(sorted(split.items())), json.loads(json.dumps(found.static))
    again = predict(denoiser, stored, static)
    torch.testing.assert_close(again, prediction_of(steps[1].answer))
    # the error that observation must see: without the residual of the key 2 the answer is another one
    lost = {key: value for key, value in split.items() if key != "residuals.deep.{2}"}
    assert not torch.allclose(predict(denoiser, lost, static), again, atol=1e-2)
    made = arguments_of(for_call(split), static)
    assert all(same(made[key], value) for key, value in given.items() if key != "timestep")


class Odd(Plain):
    """Calls its denoiser as no record can repeat."""

    def guided(self, latents, t, prompt, scale):
        before = self.unet.conv_in.bias.clone()
        self.unet.conv_in.bias.add_(0.5)  # as pipelines that set attention processors, or turn modules on for a while
        try:
            return super().guided(latents, t, prompt, scale)
        finally:
            self.unet.conv_in.bias.copy_(before)


class Kept:
    """A cache among a denoiser's arguments."""

    def __init__(self, value) -> None:
        self.value = value


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = unet()

    def forward(self, latents, timestep, words, cache=None, mode=None):
        more = 0 if cache is None else cache.value
        return (self.net(latents + more, timestep, words).sample,)


class WithCache(Plain):
    value, modes = 0.0, (None,)

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.count = Caching().eval().requires_grad_(False), 0

    def guided(self, latents, t, prompt, scale):
        many = self.words[prompt] if scale <= 1 else torch.cat([self.words[""], self.words[prompt]])
        mode = self.modes[[int(one) for one in self.scheduler.timesteps].index(int(t)) % len(self.modes)]
        answer = self.unet(torch.cat([latents] * len(many)), t, many, cache=Kept(self.value), mode=mode)[0]
        return answer if scale <= 1 else answer[:1] + scale * (answer[1:] - answer[:1])


def test_a_denoiser_that_answers_to_more_than_its_arguments_is_refused():
    told = message_of(ModelError, lambda: observe(Odd(), **CALL))
    assert told.startswith("call 1 of UNet2DConditionModel, made again from its record, gives another answer")
    assert max(one.error for one in observe(Plain(), **CALL).replays.values()) < 1e-5


def test_an_object_is_left_out_only_where_it_does_nothing():
    found = observe(WithCache(), **CALL).replays["unet"]
    assert found.left_out == {"cache"} and found.error < 1e-5 and found.static == {"mode": None}
    full = type("Full", (WithCache,), {"value": 0.5})
    told = message_of(ModelError, lambda: observe(full(), **CALL))
    assert told == "the denoiser's argument cache is a Kept; such arguments cannot be recorded yet"
    changing = type("Changing", (WithCache,), {"modes": ("write", "read")})
    told = message_of(ModelError, lambda: observe(changing(), **CALL))
    assert "argument mode changes from 'write' to 'read'; such arguments cannot be recorded yet" in told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("AnyFlowFARPipeline", "changes from"),
        ("StableDiffusionGLIGENPipeline", "answers to more than its arguments"),
        ("QwenImage21Pipeline", "kv_cache_mode changes from 'extract' to 'cached'"),
        ("Cosmos3OmniPipeline", "cannot be made again"),
    ],
)
def test_pipelines_whose_calls_no_record_can_repeat_are_refused_when_observed(name, told):
    case = build(name)
    assert told in message_of(ModelError, lambda: observe(case.pipe, **case.call))


def test_a_dictionary_with_numbers_for_keys_is_recorded_right():
    case = build("ZImageControlNetPipeline")
    seen = observe(case.pipe, **case.call)
    called = next(target.called for target in seen.targets.values())
    assert any(".{" in name for name in called.call.tensors)
    assert seen.replays["transformer"].error < 1e-5


def test_the_images_of_a_call_are_counted():
    assert images_of({"prompt": "a fox"}, 1) == images_of({"prompt": ["a"]}, 16) == images_of({}, 4) == 1
    assert images_of({"prompt": ["a", "b"], "num_images_per_prompt": 3}, 12) == 6
    assert images_of({"class_labels": [1, 2]}, 2) == images_of({"prompt_embeds": torch.rand(2, 3, 4)}, 4) == 2
