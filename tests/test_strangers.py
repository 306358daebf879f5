"""Adapters, groups, models and settings of strangers: what they may not do, and one line that says so."""

import json
import re
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli import fails
from test_hub import build, unsealed
from zoo import message_of, pipeline

from guidefold import cli, models
from guidefold.adapters import patterns
from guidefold.config import AdapterConfig, TrainConfig
from guidefold.errors import InputError, ModelError
from guidefold.keeping import Adapter, hub
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import from_pretrained, save_pretrained
from guidefold.keeping.weights import read_description, seal

ESCAPES = "me/\x1b[2Jbase\n---\nlicense: mine\u202e <script>[x](y)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return save_pretrained(build()[2], tmp_path_factory.mktemp("whole") / "adapter")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "adapter"))


def forge(folder: Path, *, weights=None, **changes) -> None:
    """Change an adapter's weights and what it says of itself, as one who knows how they are sealed."""
    described = read_description(folder)
    for name, value in changes.items():
        described[name] = {**described[name], **value} if isinstance(value, dict) else value
    tensors = load_file(folder / hub.WEIGHTS)
    tensors |= {name: change(tensors[name]) for name, change in (weights or {}).items()}
    sealed = seal(described, tensors)
    save_file(tensors, folder / hub.WEIGHTS, metadata={"guidefold": json.dumps(sealed)})
    (folder / "config.json").write_text(json.dumps(sealed))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda value: value * float("nan"), "has layers.0.up with a number that is not finite"),
        (lambda value: value.index_fill(0, torch.tensor(0), -float("inf")), "a number that is not finite"),
        (lambda value: value.long(), "has layers.0.up of type I64; weights are F64, F32, F16, BF16"),
        (lambda value: value.bool(), "of type BOOL"),
        (lambda value: value[:1].contiguous(), "layers.0.up has shape [1, 2], not ["),
        (lambda value: value[None], "layers.0.up has shape [1, "),
    ],
)
def test_weights_that_are_no_finite_numbers_of_their_shape_are_refused(folder, change, told):
    forge(folder, weights={"layers.0.up": change})
    assert told in message_of(ModelError, lambda: from_pretrained(folder))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(spec=dict(timestep_scale=float("nan"))), "(timestep_scale is nan; "),
        (dict(spec=dict(timestep_scale=0)), "(timestep_scale is 0; "),
        (dict(spec=dict(anchors=0)), "(anchors is 0; "),
        (dict(spec=dict(anchors=-1)), "anchors is -1"),
        (dict(spec=dict(anchors=2)), "anchors is 2"),
        (dict(spec=dict(dials=[["guidance_scale", float("nan")]])), "guidance_scale is off at nan"),
        (dict(spec=dict(dials=[["a", 1.0], ["a", 0.0]])), "there are 2 dials of 1 names"),
        (dict(spec=dict(dials=[])), ""),
        (dict(spec=dict(tokens={"a": -1})), "a of tokens is -1"),
        (dict(spec=dict(timestep=None)), "timestep is called 'None'"),
        (dict(spec=dict(guider="yes")), "guider is 'yes'"),
        (dict(shapes={"a\x1b[2J": [1, 1]}), r"a target is called 'a\\x1b[2J'"),
        (dict(shapes={"a": [10**40, 1]}), "the shape of a is"),
        (dict(trained=5), "trained is 5; give an object"),
        (dict(trained=dict(steps="x")), "steps is 'x'; give a whole number"),
        (dict(trained=dict(scale_min=[1])), "scale_min is [1]; give a finite number"),
        (dict(trained=dict(scale_max=float("nan"))), "scale_max is nan"),
        (dict(trained=dict(scale_min=10.0)), "scale_min is 10, above scale_max, 9"),
        (dict(trained=dict(recovered=True)), "recovered is True"),
        (dict(trained=dict(base=5)), "base is 5; give a text"),
    ],
)
def test_a_description_of_nonsense_is_refused(folder, changes, told):
    forge(folder, **changes)
    message = message_of(ModelError, lambda: from_pretrained(folder))
    assert "describes no adapter (" in message and told in message and "\x1b" not in message


@pytest.mark.parametrize(
    "changes",
    [
        dict(adapter=dict(rank=10**8)),
        dict(adapter=dict(width=10**8)),
        dict(spec=dict(tokens={"a": 10**9})),
        dict(spec=dict(labels={"a": 10**9})),
        dict(shapes={"a": [10**9, 10**9]}),
        dict(shapes={"a": [2**30, 2**30, 2**20, 1, 1]}),
        dict(adapter=dict(rank=2**62)),
        dict(shapes={f"a{number}": [1, 1] for number in range(20_001)}),
    ],
)
def test_a_description_of_gigabytes_makes_none(folder, changes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forge(folder, **changes)
    message_of(ModelError, lambda: from_pretrained(folder))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_an_adapter_without_a_checksum_loads_with_a_warning(folder):
    expected = from_pretrained(folder).state_dict()
    unsealed(folder)
    with pytest.warns(UserWarning, match="carries no checksum"):
        loaded = from_pretrained(folder).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in expected.items())


def test_terminal_escapes_and_markup_reach_neither_terminal_nor_card(folder, tmp_path, capsys):
    forge(folder, trained={"base": ESCAPES, "source": "<b>", "more": {"\x1b": ["\x07"]}})
    assert cli.main(["info", str(folder)]) == 0
    adapter = from_pretrained(folder)
    other = message_of(ModelError, lambda: adapter.attach(pipeline(mid_block_type=None)))
    card = (save_pretrained(adapter, tmp_path / "copy", name='x"\n```\n# y') / "README.md").read_text()
    for text in (capsys.readouterr().out, other, card):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert card.count("---\n") == 2 and "base_model" not in card and "\nlicense" not in card
    assert "<" not in re.sub(r"\\<", "", card) and r"\[x\]\(y\)" in card and "\n# y" not in card
    adapter.trained["base"] = "me/base"
    assert "\nbase_model: me/base\n" in hub.model_card(adapter, "x")


@pytest.mark.parametrize(
    "names", [["../outside"], ["/etc"], [""], ["."], [], {}, 5, "abc", ["a/b"], [None], {"../outside": "x"}]
)
def test_a_group_stays_in_its_folder(names, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "outside")
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "adapters.json").write_text(json.dumps(names))
    assert "lists no adapters" in message_of(ModelError, lambda: hub.load(tmp_path / "group"))


def test_a_group_is_named_after_components(whole, tmp_path):
    adapter = from_pretrained(whole)
    for adapters in ({}, {"../outside": adapter}, {"": adapter}):
        message_of(InputError, lambda adapters=adapters: AdapterGroup(adapters))
    group = AdapterGroup({"one": adapter, "two": adapter})
    group.save_pretrained(tmp_path)
    adapter.trained = {}
    adapter.save_pretrained(tmp_path / "two")
    with pytest.warns(UserWarning, match="two is not what was saved with the others"):
        assert list(AdapterGroup.from_pretrained(tmp_path).adapters) == ["one", "two"]


def test_a_regular_expression_cannot_hang(monkeypatch):
    denoiser, _, adapter = build()
    monkeypatch.setattr(patterns, "SECONDS", 0.5)
    config = AdapterConfig(target_modules=r"(([a-z_0-9]+)\.?)+!")
    told = message_of(ModelError, lambda: Adapter.build(denoiser, adapter.spec, config))
    assert "takes longer than 0.5 s to match; give names or a simpler expression" in told


@pytest.mark.parametrize("nested", ["[" * 50_000, '{"a":' * 50_000])
def test_deep_nesting_is_one_line(nested, folder, tmp_path, capsys):
    unsealed(folder)
    (folder / "config.json").write_text(nested)
    assert "describes no adapter" in message_of(ModelError, lambda: from_pretrained(folder))
    (tmp_path / "deep.toml").write_text(f"rank = {nested}")
    assert "cannot read settings" in fails(["train", "--store", "s", "--config", str(tmp_path / "deep.toml")], capsys)
    message_of(InputError, lambda: TrainConfig.from_toml(tmp_path / "deep.toml"))
    (tmp_path / "run.json").write_text(nested)
    assert "cannot read a run" in fails(["info", str(tmp_path)], capsys)
    assert "is nested too deeply" in fails(["sample", "a fox", "--call", f"x={'[' * 50_000}"], capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pipeline().save_pretrained(folder)
    return folder


def without(model: Path, folder: Path, changes) -> str:
    """Return why a changed copy of a pipeline's folder is not loaded."""
    changes(Path(shutil.copytree(model, folder)))
    return message_of(ModelError, lambda: models.load_pipeline(str(folder), "cpu", "float32"))


def pickled(folder: Path) -> None:
    """Keep the denoiser's weights as a pickle."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()


def widened(folder: Path) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cross_attention_dim": 32}))


def renamed(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "NoSuchPipeline"}))


@pytest.mark.filterwarnings("ignore")  # of diffusers, about the folder
def test_a_pipeline_that_cannot_be_loaded_says_why(model, tmp_path):
    assert "safetensors" in without(model, tmp_path / "a", pickled)
    told = without(model, tmp_path / "b", widened)
    assert "24" in told and "32" in told  # what does not fit, not only that something does not
    assert "NoSuchPipeline" in without(model, tmp_path / "c", renamed)


@pytest.mark.parametrize("device", ["meta", "cuda:99", "xla", "nonsense", "", "privateuseone", "cpu:x"])
def test_a_device_in_name_only_is_refused(device):
    if device.startswith("cuda") and torch.cuda.device_count() > 99:
        pytest.skip("there is one")
    assert "cannot be used here; leave --device out" in message_of(InputError, lambda: models.best_device(device))
