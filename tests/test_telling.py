"""Odd paths, poor terminals, readers that leave, figures that cannot be drawn: one line, never a traceback."""

import io
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_cli import fails
from test_gallery import pictures, results
from test_hub import build

from guidefold import cli, ui
from guidefold.errors import InputError
from guidefold.evaluation import gallery
from guidefold.evaluation.results import Evaluation
from guidefold.files import digest, exists, sealed, unsealed
from guidefold.keeping.hub import save_pretrained
from guidefold.streams import finish
from guidefold.texts import reason, visible

LONG = "y" * 300


@pytest.fixture
def evaluated(tmp_path) -> Path:
    gallery.save_results(tmp_path / "run", results(), pictures())
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\r\u2028", r"two\nlines\r\u2028"),
        ("caf\udcff \ud800", r"caf\xff \ud800"),
        ("\u202eback\x9b", r"\u202eback\x9b"),
        ("é 🦊 ok 日本", "é 🦊 ok 日本"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown, capsys):
    assert visible(text) == shown
    ui.say(text)
    ui.table(text, ("what",), [(text,)])
    ui.error_line(text)
    told = capsys.readouterr()
    assert told.out.count(shown) == 3 and not set(told.out + told.err) & set("\x1b\x07\r\u2028\u202e\x9b")


def test_a_reason_is_one_line_and_not_too_long():
    assert reason(ValueError("Error(s) in loading:\n\tsize mismatch")) == "Error(s) in loading: size mismatch"
    assert reason(ValueError()) == "ValueError" and len(reason(ValueError("x" * 9000))) < 500


@pytest.mark.parametrize("command", ["info", "report", "merge one", "sample fox --adapter", "record --conditions"])
@pytest.mark.parametrize("name", [LONG, "caf\udcff", "loop", "file/inside"])
def test_odd_paths_are_one_line(command, name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").touch()
    told = fails([*command.split(), name], capsys)
    assert "damaged" not in told and "\udcff" not in told


@pytest.mark.parametrize("name", [LONG, "loop/x", "file/inside"])
def test_odd_outputs_are_one_line(name, evaluated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    Path("file").touch()
    one = str(save_pretrained(build()[2], "one"))
    assert "cannot write" in fails(["report", str(evaluated), "--output", name], capsys)
    assert "cannot write" in fails(["merge", one, one, "--output", name], capsys)


def test_a_folder_of_a_name_that_is_no_utf8_is_taken(tmp_path):
    folder = save_pretrained(build()[2], tmp_path / "caf\udcff")
    assert 'guidefold.load("caf\\\\xff")' in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="only root can give up its rights")
def test_a_folder_without_rights_is_told_as_such(tmp_path, capsys):
    one = save_pretrained(build()[2], tmp_path / "one")
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in (tmp_path, *tmp_path.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)
    before = os.geteuid()
    for path, word in ((one / "model.safetensors", "cannot read"), (one, "look at")):
        mode = path.stat().st_mode
        path.chmod(0)
        os.seteuid(65534)
        try:
            told = fails(["info", str(one)], capsys)
        finally:
            os.seteuid(before)
            path.chmod(mode)
        assert word in told and "Permission denied" in told and "damaged" not in told
    os.seteuid(65534)
    try:
        assert "cannot write" in fails(["merge", str(one), str(one), "--output", str(tmp_path / "new")], capsys)
    finally:
        os.seteuid(before)


def test_a_terminal_of_few_characters_is_shown_the_rest_escaped(evaluated, monkeypatch):
    paper = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(paper, encoding="ascii"))
    target = evaluated.rename(evaluated.with_name("é🦊"))
    assert cli.main(["report", str(target)]) == 0
    ui.table("Fréchet", ("é",), [("🦊",)])
    sys.stdout.flush()
    assert paper.getvalue().isascii() and b"\\xe9" in paper.getvalue()


def test_work_goes_on_when_nobody_reads(evaluated, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with ExitStack() as files:
        for name in ("stdout", "stderr"):
            reading, writing = os.pipe()
            os.close(reading)
            monkeypatch.setattr(sys, name, files.enter_context(os.fdopen(writing, "w", buffering=1)))
        with ui.progress("Training", 2) as bar:
            bar.advance(2)
        assert cli.main(["report", str(evaluated)]) == 0 and cli.main(["info"]) == 0
        assert cli.main(["info", "no/where/at/all"]) == 2
        ui.say("on")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_what_cannot_be_told_is_an_error(monkeypatch):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        print("x")
        with pytest.raises(InputError, match="No space left on device"):
            finish()
        print("y")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (dict(recovered_by_scale={"4": None}), "recovered_by_scale is "),
        (dict(recovered_by_scale={"nan": 0.5}), "recovered_by_scale is "),
        (dict(recovered_by_timestep={"4": 1e200}), "4 is no finite number"),
        (dict(recovered_by_timestep={"4": 10**400}), "4 is too large a number"),
        (dict(recovered_on_own_states={"4": True}), "recovered_on_own_states is "),
        (dict(passes=None), "passes is None; give a number"),
        (dict(seconds_per_image=float("nan")), "seconds_per_image is no finite number"),
        (dict(frechet=dict(value=None, low=0, high=1)), "value is None; give a number"),
        (dict(clip_score=dict(value=1e301, low=0, high=1)), "value is no finite number"),
        (dict(guidance_scale="4"), "guidance_scale is '4'; give a number"),
        (dict(prompts=[5]), "prompts is [5]; give a list of texts"),
    ],
)
def test_figures_that_cannot_be_drawn_are_told(changes, told, evaluated, capsys):
    values = results().to_dict()
    rows = {name: value for name, value in changes.items() if name in values["rows"][0]}
    values["rows"][0] |= rows
    values |= {name: value for name, value in changes.items() if name not in rows}
    (evaluated / "evaluation.json").write_text(json.dumps(values))
    assert told in fails(["report", str(evaluated)], capsys)


def test_figures_at_the_edge_are_drawn(evaluated):
    values = results().to_dict()
    values["recovered_by_scale"] = {"4": 1e100, "5": -1e100}
    values["rows"][0] |= {"frechet": dict(value=1e100, low=-1e100, high=1e100), "seconds_per_image": 0}
    (evaluated / "evaluation.json").write_text(json.dumps(values))
    lines = [{"step": 0, "loss": 5e-324}, {"step": 1, "loss": 1e100, "validation": -1e100}, {"step": 10**99, "loss": 0}]
    (evaluated / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (evaluated / "pictures" / "pictures.json").unlink()
    assert gallery.report_of(evaluated).exists()


def test_a_seal_knows_what_it_seals(tmp_path):
    values = Evaluation.load(results().save(tmp_path / "a.json")).to_dict()
    assert unsealed(sealed(values), "it") == values and unsealed(values, "it") == values
    assert digest({"b": (1.0, 2), "a": None}) == digest({"a": None, "b": [1.0, 2]}) != digest({"a": None, "b": [1, 2]})
    with pytest.raises(InputError, match="it is damaged: its checksum does not fit"):
        unsealed({**sealed(values), "device": "gpu"}, "it")
    with pytest.raises(InputError, match="is no path"):
        exists("a\0b")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("sample fox --guidance-scale nan --no-adapter", "'nan' is not a finite number"),
        ("sample fox --guidance-scale inf", "'inf' is not a finite number"),
        ("observe fox --guidance-scale x", "'x' is not a finite number"),
        ("merge {one} {one} --shares 1e308 1e-308", "give numbers of one order"),
        ("sample fox --guidance-scale 4 4.0000001", "two guidance scales are 4, and so would be the names"),
        ("sample fox --call height=128", "the argument height is ignored without width; give both"),
    ],
)
def test_numbers_that_mean_nothing_are_told(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one = save_pretrained(build()[2], "one")
    assert told in fails(arguments.format(one=one).split(), capsys)


def test_large_shares_are_shares(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = str(save_pretrained(build()[2], "one"))
    assert cli.main(["merge", one, one, "--shares", "1e308", "1e308", "--output", "two"]) == 0
    from guidefold import load, merge

    alike = zip(load("two").state_dict().values(), merge([one, one]).state_dict().values(), strict=True)
    assert all(bool((a == b).all()) and bool(a.any() == b.any()) for a, b in alike)
