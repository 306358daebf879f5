"""Adapters travel as safetensors, JSON and a model card."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from runs import DRAWN, PROMPTS
from safetensors.torch import load_file, save_file
from zoo import make, message_of, shake

from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.denoiser import predict, prediction_of, read_call
from guidefold.errors import InputError, ModelError
from guidefold.keeping import Adapter, hub
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import from_pretrained, save_pretrained, start_from
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of


def build():
    denoiser, call = make("sd")
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    adapter = Adapter.build(denoiser, spec, AdapterConfig(rank=2, width=8))
    shake(adapter)
    adapter.trained = {
        "base": "me/base",
        "scale_min": 1.5,
        "scale_max": 9.0,
        "source": "online",
        "steps": 5,
        "recovered": 0.5,
    }
    return denoiser, call, adapter


@torch.no_grad()
def test_an_adapter_starts_from_a_saved_one_with_conditions_that_are_new_to_it(tmp_path):
    denoiser, call = make("sd")
    seen = read_call(denoiser, (), call)
    torch.manual_seed(1)
    first = Adapter.build(denoiser, ConditionSpec.observe(denoiser, seen))
    shake(first)
    save_pretrained(first, tmp_path)
    second = Adapter.build(denoiser, ConditionSpec.observe(denoiser, seen, negative=True))
    start_from(second, tmp_path)
    first.attach(denoiser).guidance_scale = 4.0
    expected = prediction_of(denoiser(**call))
    first.detach()
    second.attach(denoiser).set(4.0, negative={"encoder_hidden_states": torch.randn(1, 7, 24)})
    assert torch.equal(prediction_of(denoiser(**call)), expected)
    other = Adapter.build(denoiser, ConditionSpec.observe(denoiser, seen), AdapterConfig(rank=2))
    with pytest.raises(ModelError, match=r"cannot start from .* it differs in"):
        start_from(other, tmp_path)


@torch.no_grad()
def test_a_saved_adapter_predicts_the_same(tmp_path):
    denoiser, call, adapter = build()
    adapter.attach(denoiser).guidance_scale = 5.0
    before = prediction_of(denoiser(**call))
    adapter.detach()
    loaded = Adapter.from_pretrained(adapter.save_pretrained(tmp_path))
    loaded.attach(denoiser).guidance_scale = 5.0
    assert torch.equal(prediction_of(denoiser(**call)), before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_pushing_uploads_a_folder_with_a_card(monkeypatch):
    _, _, adapter = build()
    uploaded = {}

    class Api:
        def create_repo(self, repository, **options):
            uploaded["repository"], uploaded["private"] = repository, options["private"]

        def upload_folder(self, *, repo_id, folder_path):
            path = hub.Path(folder_path)
            uploaded["files"] = {one.name for one in path.iterdir()}
            uploaded["card"] = (path / "README.md").read_text(encoding="utf-8")
            return f"commit of {repo_id}"

    monkeypatch.setattr(hub, "HfApi", Api)
    assert adapter.push_to_hub("me/folded", private=True) == "commit of me/folded"
    assert uploaded["files"] == {"README.md", "config.json", "model.safetensors"}
    assert "base_model: me/base" in uploaded["card"]
    assert 'guidefold.load("me/folded")' in uploaded["card"]
    assert "1.5 to 9" in uploaded["card"]
    assert uploaded["private"]


def test_a_group_is_pushed_and_fetched_as_one(monkeypatch, tmp_path):
    group, kept = AdapterGroup({name: build()[2] for name in ("transformer", "transformer_2")}), tmp_path / "hub"

    class Api:
        def create_repo(self, repository, **options):
            pass

        def upload_folder(self, *, repo_id, folder_path):
            return shutil.copytree(folder_path, kept)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", lambda name, allow_patterns: str(kept))
    group.push_to_hub("me/folded")
    card = (kept / "README.md").read_text()
    assert 'guidefold.load("me/folded")' in card and "[transformer_2](transformer_2/README.md)" in card
    loaded = hub.load("me/folded")
    assert isinstance(loaded, AdapterGroup) and list(loaded.adapters) == list(group.adapters)
    told = message_of(InputError, lambda: from_pretrained("me/folded"))
    assert told == "me/folded holds an adapter for each of several denoisers; use guidefold.load"


def test_what_the_hub_refuses_is_one_line(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub.HfApi, "create_repo", offline)
    told = message_of(InputError, lambda: build()[2].push_to_hub("me/folded"))
    assert told == "cannot push to me/folded (no route); log in, or give a repository of yours"


@pytest.mark.parametrize("design", ["film", "cross_attention", "offset"])
def test_saved_then_loaded_is_the_same_adapter(pipe, design, tmp_path):
    recorder = Recorder(pipe, PROMPTS, DRAWN)
    inputs = inputs_of(recorder.states([0, 1]))
    adapter = Adapter.build(pipe.unet, recorder.spec, AdapterConfig(design=design, rank=2, width=8))
    shake(adapter)
    adapter.trained = {"base": "me/tiny", "scale_min": 1.5, "scale_max": 6.0, "recovered": 0.875}
    outputs = []
    for one in (adapter, from_pretrained(save_pretrained(adapter, tmp_path / "adapter"))):
        one.attach(pipe.unet).guidance_scale = 4.0
        with torch.no_grad():
            outputs.append(predict(pipe.unet, inputs, recorder.static))
        one.detach()
        assert one.config == adapter.config and one.trained == adapter.trained and one.spec == adapter.spec
    assert torch.equal(*outputs)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "base_model: me/tiny" in card and "scales from 1.5 to 6" in card and "87.5%" in card
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def unsealed(folder: Path) -> None:
    """Leave an adapter as it was written before its weights described themselves."""
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors")
    path = folder / "config.json"
    described = json.loads(path.read_text())
    del described["sha256"]
    path.write_text(json.dumps(described))


def broken(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "describes no adapter"),
        (lambda folder: (folder / "config.json").write_text("[]"), "describes no adapter"),
        (lambda folder: broken(folder, shapes=[]), "describes no adapter"),
        (lambda folder: broken(folder, shapes={"a": [1]}), "describes no adapter"),
        (lambda folder: broken(folder, adapter={"width": 0}), "describes no adapter (width is 0; give at least 1)"),
        (lambda folder: broken(folder, format=1), "format 1, this guidefold reads 2; use the one that wrote it"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing or damaged"),
        (lambda folder: os.truncate(folder / "model.safetensors", 500), "is missing or damaged"),
        (lambda folder: save_file({}, folder / "model.safetensors"), "its description tells: it lacks encoder."),
    ],
)
def test_a_damaged_adapter_is_refused(finished, damage, told, tmp_path):
    folder = save_pretrained(from_pretrained(finished["recorded"] / "best"), tmp_path / "adapter")
    unsealed(folder)
    damage(folder)
    assert told in message_of(ModelError, lambda: from_pretrained(folder))


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    assert "there is no config.json" in message_of(InputError, lambda: from_pretrained(tmp_path))


def test_the_card_tells_base_and_scales(finished):
    card = (finished["recorded"] / "best" / "README.md").read_text()
    assert "UNet2DConditionModel" in card and "scales from 1.5 to 6" in card and "recorded states" in card
