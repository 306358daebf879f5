"""Where a user wants results: what cannot be written is told before any work, what is damaged in one line."""

from pathlib import Path

import pytest
from test_cli import fails
from test_gallery import pictures, results

from guidefold import cli, models
from guidefold.errors import InputError
from guidefold.evaluation import gallery
from guidefold.evaluation.results import Evaluation
from guidefold.files import make_folder

COMMANDS = {"eval": [], "sample": ["a fox"], "train": ["--store", "store"]}


@pytest.fixture
def evaluated(tmp_path) -> Path:
    gallery.save_results(tmp_path / "run", results(), pictures())
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo', encoding="utf-8")
    return tmp_path / "run"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", ["afile", "afile/sub"])
def test_an_output_that_cannot_be_written_is_told_before_the_pipeline_is_loaded(
    name, place, tmp_path, monkeypatch, capsys
):
    (tmp_path / "afile").write_text("dear", encoding="utf-8")
    monkeypatch.setattr(models, "load_pipeline", None)
    told = fails([name, *COMMANDS[name], "--output", str(tmp_path / place)], capsys)
    assert f"cannot write {tmp_path / place}: " in told and "choose another output" in told
    assert (tmp_path / "afile").read_text(encoding="utf-8") == "dear"


def test_trying_a_folder_leaves_nothing_in_it(tmp_path):
    assert not list(make_folder(tmp_path / "deep" / "folder").iterdir())


def test_a_report_is_a_file(evaluated, capsys, monkeypatch):
    monkeypatch.chdir(evaluated)
    for output, message in ((".", "it is a folder"), ("log.jsonl/x.html", "cannot write log.jsonl/x.html: ")):
        assert message in fails(["report", str(evaluated), "--output", output], capsys)
    assert cli.main(["report", str(evaluated), "--output", "new/report.html"]) == 0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("log.jsonl", b'{"step": 0}\n{"step" 1}\n', "log.jsonl, line 2 is damaged"),
        ("log.jsonl", b'{"loss": 1.0}\n', "log.jsonl, line 1 is damaged"),
        ("log.jsonl", b'{"step": "x"}\n', "log.jsonl, line 1 is damaged"),
        ("log.jsonl", b'{"step": 0, "loss": "\xff"}\n', "cannot read "),
        ("evaluation.json", b'{"rows": 5}', "rows is 5; give a list"),
        ("evaluation.json", b'{"rows": [5]}', "5 is no Row"),
        ("evaluation.json", b"\xff", "cannot read an evaluation"),
        ("pictures/0-cfg.png", None, "cannot read the pictures"),
        ("pictures/0-cfg.png", b"no picture", "cannot read the pictures"),
        ("pictures/pictures.json", b"[{}]", "cannot read the pictures"),
    ],
)
def test_a_report_of_damaged_files_says_which(file, content, message, evaluated, capsys):
    assert cli.main(["report", str(evaluated)]) == 0
    capsys.readouterr()
    if content is None:
        (evaluated / file).unlink()
    else:
        (evaluated / file).write_bytes(content)
    told = fails(["report", str(evaluated)], capsys)
    assert message in told and str((evaluated / file).parent) in told


@pytest.mark.parametrize("changes", [{"recovered_by_scale": 5}, {"recovered_by_timestep": {"x": 1}}, {"prompts": 5}])
def test_an_evaluation_of_other_types_is_refused(changes):
    with pytest.raises(InputError, match=f"{next(iter(changes))} is "):
        Evaluation.from_dict({**results().to_dict(), **changes})


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_run_is_told(content, tmp_path, capsys):
    (tmp_path / "run.json").write_bytes(content)
    assert f"cannot read a run from {tmp_path / 'run.json'}" in fails(["info", str(tmp_path)], capsys)
