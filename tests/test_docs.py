"""The documentation is true: its commands run, or it says why not here; its links lead somewhere; it builds."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from sampling import build as build_adapter
from zoo import pipeline

from guidefold import cli
from guidefold.demo import bundle

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WALK = ("install", "demo", "distil", "use", "judge", "trouble")
BLOCK = re.compile(r"(?:<!-- (?P<why>not run here: [^>]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def blocks(page, language):
    """Return the blocks of code of a page, and why each is not run, if it says so."""
    found = BLOCK.finditer((DOCS / f"{page}.md").read_text(encoding="utf-8"))
    return [(one["code"], one["why"]) for one in found if one["language"] == language]


def commands(code):
    return [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("page", WALK)
def test_the_commands_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(bundle.prompts()[:12]), encoding="utf-8")
    for command in (one for code, why in blocks(page, "sh") if why is None for one in commands(code)):
        assert command[0] == "guidefold", f"{command} is no command of guidefold: say why it is not run"
        assert cli.main(command[1:]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", WALK)
def test_commands_that_are_not_run_are_good_commands(page, capsys):
    for command in (one for code, why in blocks(page, "sh") if why for one in commands(code)):
        if command[0] == "guidefold":
            cli.parser().parse_args(command[1:])


def test_the_python_of_a_page_runs():
    pipe = bundle.load_teacher()
    pipe.scheduler.set_timesteps(2)
    for code, why in blocks("use", "python"):
        scope = {"pipe": pipe}
        exec(code.replace("guidance_scale=4", "guidance_scale=4, num_inference_steps=2"), scope)
        assert why is None and scope["image"].size == (64, 64)


def test_messages_that_are_explained_are_ours():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    told = re.findall(r'^## "(.+)"$', (DOCS / "trouble.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) > 5 and [one for one in told if one not in source] == []


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra docs is not installed")
def test_the_site_builds_and_the_links_of_the_walk_lead_somewhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    config = pytest.importorskip("mkdocs.config").load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path))
    pytest.importorskip("mkdocs.commands.build").build(config)
    assert all((tmp_path / page / "index.html").exists() for page in WALK)
    told = [one.getMessage() for one in caplog.records if one.levelname in ("WARNING", "ERROR")]
    assert [one for one in told if any(f"'{page}.md'" in one for page in ("index", "guide", *WALK))] == []


def recipe():
    return next(code for code, _ in blocks("guide", "python") if "LoraConfig" in code)


def test_the_recipe_trains_the_lora_alone_and_bare_of_the_adapter():
    pipe = pipeline()
    adapter = build_adapter(pipe).attach(pipe)
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    shape = pipe.unet.config
    given = {"latents": torch.randn(2, 4, shape.sample_size, shape.sample_size), "texts": torch.randn(2, 7, 24)}
    exec(recipe(), {"pipe": pipe, "adapter": adapter, "steps": 2, **given})
    trained = pipe.unet.state_dict()
    base = {name.replace(".base_layer", ""): value for name, value in trained.items() if "lora_" not in name}
    assert all(torch.equal(base[name], value) for name, value in weights.items())
    assert adapter.enabled and any(value.any() for name, value in trained.items() if "lora_B" in name)
