"""Adapters travel as safetensors, JSON and a model card."""

import torch
from zoo import make, shake

from guidefold.adapters import Adapter, ConditionSpec, hub
from guidefold.config import AdapterConfig
from guidefold.denoiser import prediction_of, read_call


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
