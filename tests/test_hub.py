"""Adapters travel as safetensors, JSON and a model card."""

import pytest
import torch
from zoo import make, shake

from guidefold.adapters import Adapter, ConditionSpec, hub
from guidefold.adapters.hub import save_pretrained, start_from
from guidefold.config import AdapterConfig
from guidefold.denoiser import prediction_of, read_call
from guidefold.errors import ModelError


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
