"""Reading a denoiser's call and answer, and putting them together again, is the identity."""

import random
from collections import OrderedDict

import pytest
import torch
from diffusers import DDIMScheduler, PixArtTransformer2DModel
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from support.case import build
from torch import Tensor, nn

from guidefold.answers import by_image, leaves, packed, refilled, unpacked
from guidefold.arguments import arguments_of, flatten
from guidefold.config import TrajectoryConfig
from guidefold.denoiser import denoisers, find_denoiser, for_call, predict, read_call, replaced
from guidefold.errors import ModelError
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of

SEEDS = range(30)
SCALARS = (None, 3, 2.5, "text", True, (1, 2), [0.5], {"plain": 1}, (), {})


class Net(nn.Module):
    def forward(self, x, timestep, words=None, more=None, return_dict=True):
        return x


def same(one, other) -> bool:
    """Tell whether two nested values are of the same types and values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def nested(rng: random.Random, depth: int, leaf, containers=("list", "tuple", "dict")):
    """Return a random nesting of lists, tuples and dictionaries around leaves."""
    if depth == 0 or rng.random() < 0.3:
        return leaf(rng)
    parts = [nested(rng, depth - 1, leaf, containers) for _ in range(rng.randint(1, 12))]
    kind = rng.choice(containers)
    if kind == "dict":
        return {f"key_{number}": part for number, part in enumerate(parts)}
    return parts if kind == "list" else tuple(parts)


def tensor(rng: random.Random, rows: tuple[int, ...] = (1, 2, 3, 6)) -> Tensor:
    shape = (rng.choice(rows), *(rng.randint(1, 3) for _ in range(rng.randint(0, 3))))
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(rng.getrandbits(30)))
    return numbers if rng.random() < 0.7 else (numbers * 9).long()


def anything(rng: random.Random):
    return tensor(rng) if rng.random() < 0.7 else rng.choice(SCALARS)


@pytest.mark.parametrize("seed", SEEDS)
def test_nested_arguments_are_read_and_nested_again(seed):
    rng = random.Random(seed)
    given = {name: nested(rng, 3, anything) for name in ("words", "more")}
    arguments = {"x": torch.ones(2, 3), "timestep": torch.tensor(5), **given}
    call = read_call(Net(), (), arguments)
    assert all(isinstance(value, Tensor) for value in call.tensors.values())
    back = arguments_of(call.tensors, call.static)
    assert set(back) == set(arguments)
    assert all(same(back[name], value) for name, value in arguments.items()), (arguments, back)


def test_arguments_by_position_are_read_by_name():
    x, words = torch.ones(2, 3), torch.ones(2, 4)
    one, two = read_call(Net(), (x, 7, words), {}), read_call(Net(), (x,), {"words": words, "timestep": 7})
    assert list(one.tensors) == list(two.tensors) == ["x", "words", "timestep"] and one.latents == "x" and one.rows == 2
    assert one.timestep == "timestep" and int(one.tensors["timestep"]) == 7 and not one.static


def test_a_network_without_timestep_is_no_denoiser():
    with pytest.raises(ModelError, match=r"Linear\.forward has no timestep among input"):
        read_call(nn.Linear(2, 2), (torch.ones(1, 2),), {})
    with pytest.raises(ModelError, match="object has no denoiser"):
        find_denoiser(object())


@pytest.mark.parametrize("images", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(10))
def test_rows_per_image_are_undone(seed, images):
    rng = random.Random(seed)
    rows = (images, 2 * images, 3 * images, 7)

    def leaf(rng):
        return tensor(rng, rows)

    given = {"words": leaf(rng), "more": nested(rng, 2, leaf), "timestep": torch.full((images,), 4.0)}
    call = read_call(Net(), (), {"x": torch.rand(images, 3), **given})
    split = call.by_image(images)
    assert all(len(value) == images for value in split.values())
    assert same(dict(sorted(for_call(split).items())), dict(sorted(call.tensors.items())))


@pytest.mark.parametrize("seed", range(10))
def test_images_in_a_list_are_rows(seed):
    rng = random.Random(seed)
    images = rng.randint(1, 12)
    x = [torch.rand(4, 1, 2) for _ in range(images)]
    arguments = {"x": x, "timestep": torch.rand(images), "words": [torch.rand(5, 3) for _ in x], "more": torch.rand(7)}
    call = read_call(Net(), (), arguments)
    split = call.by_image(images)
    assert call.rows == images and split["x.[*]"].shape == (images, 4, 1, 2) and split["words.[*]"].shape[0] == images
    back = arguments_of(for_call(split), call.static)
    assert all(same(back[name], value) for name, value in arguments.items())
    order = torch.randperm(images)  # other images, in another batch
    back = arguments_of(for_call({name: value[order] for name, value in split.items()}), {})
    assert all(torch.equal(back["x"][place], x[number]) for place, number in enumerate(order))


def test_one_timestep_is_one_for_every_image():
    for timestep in (torch.tensor(5), torch.tensor([5]), 5, 5.0):
        split = read_call(Net(), (torch.rand(3, 2), timestep), {}).by_image(3)
        assert split["timestep"].tolist() == [5, 5, 5]


def test_sequences_of_unequal_length_are_told():
    arguments = {"x": [torch.rand(4, 1)] * 2, "timestep": 1, "words": [torch.rand(5, 3), torch.rand(6, 3)]}
    with pytest.raises(ModelError, match=r"words.\[\*\] has shapes \(5, 3\) and \(6, 3\) for two images") as caught:
        read_call(Net(), (), arguments).by_image(2)
    assert "\n" not in str(caught.value)


def test_what_images_share_may_not_differ():
    call = read_call(Net(), (torch.rand(4, 2), 1), {"words": torch.rand(8, 3)})
    split = call.by_image(4, frozenset({"words"}))
    assert torch.equal(for_call(split)["words"], call.tensors["words"])
    assert torch.equal(for_call({name: value[:1] for name, value in split.items()})["words"], call.tensors["words"])
    split["words@shared"] = torch.rand(4, 8, 3)
    with pytest.raises(ModelError, match="words differs between images that share it in one call"):
        for_call(split)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "record_batch"),
    [("FluxPipeline", 1), ("FluxPipeline", 2), ("ZImagePipeline", 1), ("CogVideoXPipeline", 2)],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_recorded_states_replay_in_any_batch(name, record_batch):
    case = build(name)
    drawn = ("prompt", "negative_prompt", "num_inference_steps", "guidance_scale", "true_cfg_scale", "output_type")
    call = {key: value for key, value in case.call.items() if key not in drawn}
    call |= {"negative_prompt": ["blurry"] * record_batch}
    config = TrajectoryConfig(trajectories=2, sampling_steps=2, keep=2, record_batch=record_batch, scale_max=4.0)
    recorder = Recorder(case.pipe, ["a red fox", "a red box"], config, **call)
    shard = recorder.shard([0, 1])
    rows = shard["trajectory"]
    states = {key.removeprefix("trajectory."): value[rows] if key.startswith("trajectory.") else value
              for key, value in shard.items()}  # fmt: skip
    for picked in ([0], [3, 1], [3, 0, 2]):
        inputs = {key: value[picked] for key, value in inputs_of(states).items()}
        predicted = predict(recorder.denoiser, inputs, recorder.static)
        energy = (predicted - states["pred_guided"][picked]).square().flatten(1).sum(1)
        torch.testing.assert_close(energy, states["energy"][picked], rtol=1e-3, atol=1e-4)


def answer_leaf(rng):
    return tensor(rng) if rng.random() < 0.8 else rng.choice((None, 3, "text"))


@pytest.mark.parametrize("seed", SEEDS)
def test_answers_are_packed_and_unpacked(seed):
    rng = random.Random(seed)
    answer = (torch.rand(2, 2), nested(rng, 3, answer_leaf), Transformer2DModelOutput(sample=torch.rand(2, 3).half()))
    numbers = packed(answer)
    assert numbers.dim() == 1 and len(numbers) == sum(leaf.numel() for leaf in leaves(answer))
    assert same(unpacked(answer, numbers), answer)
    assert same(refilled(answer, leaves(answer)), answer)
    doubled = unpacked(answer, 2 * numbers)
    torch.testing.assert_close(packed(doubled), 2 * numbers)
    assert all(one.dtype == other.dtype for one, other in zip(leaves(doubled), leaves(answer), strict=True))


def test_output_objects_stay_output_objects():
    answer = Transformer2DModelOutput(sample=torch.rand(2, 3))
    made = unpacked(answer, torch.zeros(6))
    assert type(made) is Transformer2DModelOutput and torch.equal(made[0], torch.zeros(2, 3))
    ordered = OrderedDict(a=torch.rand(2), b=torch.ones(1, dtype=torch.long))
    assert same(unpacked(ordered, torch.zeros(2)), OrderedDict(a=torch.zeros(2), b=torch.ones(1, dtype=torch.long)))


@pytest.mark.parametrize(
    ("answer", "shape"),
    [
        (torch.rand(2, 4, 3), (2, 4, 3)),
        ((torch.rand(2, 4),), (2, 4)),
        (Transformer2DModelOutput(sample=torch.rand(2, 4)), (2, 4)),
        ((torch.rand(6, 4),), (2, 3, 4)),
        (([torch.rand(4, 1), torch.rand(4, 1)],), (2, 4, 1)),
        ([torch.rand(2, 4), torch.rand(2, 3, 2)], (2, 10)),
    ],
)
def test_answers_by_image_keep_their_order(answer, shape):
    rows = by_image(answer, 2)
    assert rows.shape == shape
    if shape != (2, 10):
        assert torch.equal(rows.reshape(-1), packed(answer))
    else:
        assert torch.equal(rows[1], torch.cat([answer[0][1], answer[1][1].reshape(-1)]))


def test_attributes_are_put_back_where_they_were():
    scheduler, net = DDIMScheduler(), Net()
    step, net.forward = DDIMScheduler.step, len
    with pytest.raises(ZeroDivisionError), replaced(scheduler, "step", 1), replaced(net, "forward", 2):
        assert (scheduler.step, net.forward) == (1, 2)
        raise ZeroDivisionError
    assert "step" not in vars(scheduler) and DDIMScheduler.step is step and net.forward is len


def test_denoisers_are_found_once_in_plain_objects():
    class Plain:
        def __init__(self):
            self.net = self.again = Net()
            self.words = nn.Linear(2, 2)
            self.unet = PixArtTransformer2DModel(
                num_attention_heads=1, attention_head_dim=8, num_layers=1, sample_size=8, cross_attention_dim=8,
                caption_channels=8, use_additional_conditions=False, norm_num_groups=8,
            )  # fmt: skip

    pipe = Plain()
    assert list(denoisers(pipe)) == ["net", "unet"] and find_denoiser(pipe) is pipe.unet


def test_flattened_names_tell_lists_from_tuples():
    tensors, static = {}, {}
    flatten("x", [(torch.ones(1), 2), {"a": torch.ones(1)}], tensors, static)
    assert list(tensors) == ["x.[0].(0)", "x.[1].a"] and static == {"x.[0].(1)": 2}
