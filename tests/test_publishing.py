"""An adapter's page on the Hub: what is uploaded, what the card says, and that its example runs from there."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from sampling import build
from standin import hub as standing_in
from test_gallery import pictures, results
from zoo import message_of, pipeline

import guidefold
from guidefold import cli, models
from guidefold.config import ModelConfig
from guidefold.errors import InputError, ModelError
from guidefold.evaluation import gallery
from guidefold.keeping.hub import save_pretrained


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with standing_in(monkeypatch, tmp_path / "cache") as server:
        yield server


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def adapter(tmp_path) -> Path:
    """Return the folder of an adapter for me/base, with an evaluation beside it."""
    made = build(pipeline())
    made.trained = {"base": "me/base", "scale_min": 1.5, "scale_max": 8.5, "source": "recorded", "steps": 7}
    made.trained["recovered"] = 0.875
    gallery.save_results(tmp_path / "eval", results(), pictures())
    return save_pretrained(made, tmp_path / "adapter")


def uploaded_model(hub, tmp_path, card="---\nlicense: other\nlicense_name: open-rail\n---\n") -> None:
    pipeline().save_pretrained(tmp_path / "base")
    hub.add("me/base", {**files_of(tmp_path / "base"), "README.md": card.encode()})


def test_a_pushed_adapter_has_a_page_whose_example_runs(hub, adapter, tmp_path, capsys):
    uploaded_model(hub, tmp_path)
    report = ["--report", str(tmp_path / "eval"), "--private"]
    assert cli.main(["push", "me/folded", "--adapter", str(adapter), *report]) == 0
    assert f"uploaded: {hub.address}/me/folded" in capsys.readouterr().out and hub.private == {"me/folded"}
    kept = hub.repositories["me/folded"]["main"]
    names = {"README.md", "config.json", "model.safetensors", "compare.jpg", "report.html", "evaluation.json"}
    assert kept.keys() == names
    _, front, card = kept["README.md"].decode().split("---\n", 2)
    told = yaml.safe_load(front)
    assert (told["library_name"], told["base_model"], told["inference"]) == ("guidefold", "me/base", False)
    assert (told["license"], told["license_name"], told["pipeline_tag"]) == ("other", "open-rail", "text-to-image")
    assert re.search(r"!\[(No guidance.*, at guidance scale \d)\]\(compare.jpg\)\n\n\*\1.\*\n", card)
    assert "scales from 1.5 to 8.5" in card and "| 4 | 2.00 | 50.0% |" in card and "87.5%" in card
    assert "a <b>fox" in card and "<b>fox" not in card.replace('"a <b>fox</b>"', "")  # in the block of code alone
    (tmp_path / "compare.jpg").write_bytes(kept["compare.jpg"])
    with Image.open(tmp_path / "compare.jpg") as sheet:
        assert sheet.width == 3 * (128 + 4)
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    scope: dict = {}
    exec(example.replace("guidance_scale=5", "num_inference_steps=2, guidance_scale=5"), scope)
    assert isinstance(scope["image"], Image.Image) and scope["adapter"].attached


def test_a_licence_that_is_not_known_is_left_to_the_base_models_page(hub, adapter):
    guidefold.push_to_hub(guidefold.load(adapter), "me/plain")
    _, front, card = hub.repositories["me/plain"]["main"]["README.md"].decode().split("---\n", 2)
    assert "license" not in yaml.safe_load(front) and "which its own page tells" in card
    guidefold.push_to_hub(guidefold.load(adapter), "me/given", licence="apache-2.0")
    assert "that of the base model, apache-2.0." in hub.repositories["me/given"]["main"]["README.md"].decode()


def test_nothing_is_uploaded_with_a_report_of_something_else(hub, adapter, tmp_path):
    told = message_of(InputError, lambda: guidefold.push_to_hub(guidefold.load(adapter), "me/x", report=tmp_path))
    assert told == f"{tmp_path} holds no evaluation.json; give the folder that eval wrote" and not hub.repositories
    hub.refused.add("you/folded")
    told = message_of(InputError, lambda: guidefold.push_to_hub(guidefold.load(adapter), "you/folded"))
    assert told.startswith("cannot push to you/folded (") and "log in, or give a repository of yours" in told


def test_a_revision_is_fetched_and_what_the_hub_refuses_is_one_line(hub, tmp_path):
    uploaded_model(hub, tmp_path)
    changed = pipeline()
    changed.unet.conv_out.bias.data.fill_(3.0)
    changed.save_pretrained(tmp_path / "changed")
    hub.add("me/base", files_of(tmp_path / "changed"), "v2")

    def load(model="me/base", **dress):
        return models.load_pipeline(model, "cpu", "float32", None, ModelConfig(**dress))

    assert torch.equal(load(revision="v2").unet.conv_out.bias, torch.full((4,), 3.0))
    assert not torch.equal(load().unet.conv_out.bias, torch.full((4,), 3.0))
    assert "cannot load a pipeline from me/base" in message_of(ModelError, lambda: load(revision="v3"))
    hub.refused.add("me/closed")
    assert "log in with `hf auth login`" in message_of(ModelError, lambda: load("me/closed"))
