"""What is written: whole or not at all, by one process, and never over what is somebody else's."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import interrupt, run
from test_cli import fails
from test_gallery import pictures, results
from test_hub import build
from zoo import message_of, shake

from guidefold import cli
from guidefold.distillation.folder import alone_in, claim
from guidefold.distillation.log import add_row, read_log, rewind
from guidefold.errors import InputError, TrainingError
from guidefold.evaluation import gallery
from guidefold.files import exists, replace_text, sweep
from guidefold.keeping import hub, weights
from guidefold.keeping.hub import from_pretrained, save_pretrained
from guidefold.memory import memory_told


@pytest.fixture
def evaluated(tmp_path) -> Path:
    gallery.save_results(tmp_path / "run", results(), pictures())
    return tmp_path / "run"


@pytest.fixture
def places(tmp_path) -> dict[str, Path]:
    """Return names where nothing may be written, among them a link to a file."""
    (tmp_path / "dear").write_text("dear", encoding="utf-8")
    (tmp_path / "link").symlink_to("dear")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    server.close()
    names = ("dear", "link", "dangling", "pipe", "socket")
    return {name: tmp_path / name for name in names} | {"device": Path("/dev/null")}


@pytest.mark.parametrize("name", ["dear", "link", "dangling", "pipe", "socket", "device"])
def test_a_report_replaces_reports_only(name, evaluated, places, tmp_path, capsys):
    before = places[name].lstat()
    told = fails(["report", str(evaluated), "--output", str(places[name])], capsys)
    assert "is no report of guidefold" in told if name == "dear" else f"cannot write {places[name]}: it is a " in told
    after = places[name].lstat()
    assert (before.st_mode, before.st_ino) == (after.st_mode, after.st_ino)
    assert (tmp_path / "dear").read_text() == "dear" and not (tmp_path / "nothing").exists()
    for _ in range(2):
        assert cli.main(["report", str(evaluated), "--output", str(tmp_path / "new.html")]) == 0


@pytest.mark.parametrize("command", ["report run", "sample fox", "eval", "merge a b", "record --conditions p"])
def test_an_empty_output_is_no_folder(command, capsys):
    assert "'' is no name of a file or folder" in fails([*command.split(), "--output", ""], capsys)


@pytest.mark.parametrize("act", [lambda: save_pretrained(build()[2], ""), lambda: replace_text("", "x")])
def test_an_empty_name_is_none_from_python(act):
    assert "an empty name" in message_of(InputError, act)


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_foreign_folder_is_not_made_an_adapter(name, tmp_path, capsys):
    one = str(save_pretrained(build()[2], tmp_path / "one"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"model_type": "mine"}')
    told = fails(["merge", one, one, "--output", str(tmp_path / "mine")], capsys)
    assert f"holds {name}, which guidefold did not write; give another folder" in told
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ['{"model_type": "mine"}']
    (Path(one) / "README.md").write_text("a card of my own")
    assert cli.main(["merge", one, one, "--output", one]) == 0
    assert (Path(one) / "README.md").read_text() == "a card of my own"


def test_planted_links_are_not_followed(tmp_path, evaluated):
    dear = tmp_path / "dear"
    dear.write_text("dear")
    for folder in (tmp_path / "adapter", evaluated / "pictures"):
        folder.mkdir(exist_ok=True)
        for name in ("model.safetensors", "config.json", "README.md", "log", "0-cfg", "pictures.json"):
            (folder / f"{name}.partial").symlink_to(dear)
    save_pretrained(build()[2], tmp_path / "adapter")
    gallery.save_results(evaluated, results(), pictures())
    assert dear.read_text() == "dear"
    (tmp_path / "adapter" / "config.json").unlink()
    (tmp_path / "adapter" / "config.json").symlink_to(dear)
    assert "config.json: it is a link" in message_of(
        InputError, lambda: save_pretrained(build()[2], tmp_path / "adapter")
    )
    assert dear.read_text() == "dear"


def test_drafts_of_the_killed_are_swept_and_no_other_file(tmp_path):
    draft, young, mine = (tmp_path / name for name in (f".{'a' * 32}.partial", f".{'b' * 32}.partial", "my.partial"))
    for path in (draft, young, mine):
        path.write_text("x")
    os.utime(draft, (0, 0))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([young.name, mine.name])


@pytest.mark.parametrize("moment", ["weights", "config", "card"])
def test_a_reader_sees_all_old_or_all_new(moment, tmp_path, monkeypatch):
    _, _, adapter = build()
    old = save_pretrained(adapter, tmp_path).joinpath("config.json").read_bytes()
    shake(adapter, seed=5)
    adapter.trained = {**adapter.trained, "base": "me/other"}

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if moment == "weights":
            patch.setattr(weights.os if hasattr(weights, "os") else os, "fsync", killed)
        else:
            done = []
            real = hub.replace_text
            patch.setattr(
                hub, "replace_text", lambda *a: killed() if len(done) == (moment == "card") else done.append(real(*a))
            )
        save_pretrained(adapter, tmp_path)
    assert ((tmp_path / "config.json").read_bytes() == old) == (moment != "card")
    if moment == "config":
        with pytest.warns(UserWarning, match="is not what model.safetensors says of itself"):
            loaded = from_pretrained(tmp_path)
    else:
        loaded = from_pretrained(tmp_path)
    new = loaded.trained["base"] == "me/other"
    assert new == (moment != "weights")
    same = [torch.equal(value, loaded.state_dict()[name]) for name, value in adapter.state_dict().items()]
    assert all(same) if new else not any(same)
    assert not list(tmp_path.glob(".*"))


def test_the_first_kill_leaves_an_adapter_or_none(tmp_path):
    save_pretrained(build()[2], tmp_path)
    (tmp_path / "config.json").unlink()
    assert from_pretrained(tmp_path).trained["base"] == "me/base"


def test_a_half_precision_that_overflows_is_not_saved(tmp_path):
    _, _, adapter = build()
    with torch.no_grad():
        adapter.layers[0].up.fill_(1e6)
    told = message_of(InputError, lambda: save_pretrained(adapter, tmp_path, dtype=torch.float16))
    assert "layers.0.up has a number that is not finite in float16" in told and not list(tmp_path.iterdir())


def test_figures_are_never_shown_with_pictures_of_another_evaluation(evaluated, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery, "save_image", killed)
    with pytest.raises(KeyboardInterrupt):
        gallery.save_results(evaluated, results_of("other"), pictures())
    with pytest.warns(UserWarning, match="is of another evaluation and left out; run eval again"):
        page = gallery.report_of(evaluated).read_text()
    assert "other" in page and "<img" not in page


def results_of(device: str):
    return type(results())(**{**vars(results()), "device": device})


def test_pictures_are_png_and_nothing_else(evaluated):
    path = evaluated / "pictures" / "0-cfg.png"
    Image.new("RGB", (8, 8)).save(path, format="GIF")
    listed = json.loads((evaluated / "pictures" / "pictures.json").read_text())
    listed["rows"][0]["images"]["cfg"] = gallery.hashlib.sha256(path.read_bytes()).hexdigest()
    (evaluated / "pictures" / "pictures.json").write_text(
        json.dumps(gallery.sealed({k: listed[k] for k in ("of", "rows")}))
    )
    assert "cannot identify image file" in message_of(InputError, lambda: gallery.report_of(evaluated))


HOLDING = """
import sys, time
from pathlib import Path
from guidefold.distillation.folder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_process_trains_in_a_folder_and_a_kill_gives_it_back(pipe, store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, "recorded", 2)
        run(pipe, tmp_path, store)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        told = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
        assert f"another process is training in {tmp_path}; wait until it has ended" in told
        other.send_signal(signal.SIGKILL)
    run(pipe, tmp_path, store)


def test_two_that_start_at_once_claim_one_run(tmp_path, monkeypatch):
    link, wanted = os.link, {"model": "a", "train": {"seed": 1}}

    def late(source, path):
        if not Path(path).exists():
            with monkeypatch.context() as patch:
                patch.setattr(os, "link", link)
                claim(tmp_path, other)
        link(source, path)

    for other in (wanted, {**wanted, "model": "b"}):
        (tmp_path / "run.json").unlink(missing_ok=True)
        monkeypatch.setattr(os, "link", late)
        if other == wanted:
            claim(tmp_path, wanted)
        else:
            assert "holds a run with model 'b', not 'a'" in message_of(TrainingError, lambda: claim(tmp_path, wanted))
        assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    with alone_in(tmp_path), pytest.raises(TrainingError), alone_in(tmp_path):
        pass


def test_one_that_begins_while_another_looks_is_of_the_same_run(tmp_path, monkeypatch):
    place, wanted = "guidefold.distillation.folder.exists", {"model": "a"}

    def late(path):
        found = exists(path)
        with monkeypatch.context() as patch:
            patch.setattr(place, exists)
            claim(tmp_path, wanted)
        (tmp_path / "log.jsonl").touch()
        return found

    monkeypatch.setattr(place, late)
    claim(tmp_path, wanted)
    assert json.loads((tmp_path / "run.json").read_text())["model"] == "a"


@pytest.mark.parametrize("held", [{}, {"train": 5}, {"train": {}}, {"train": None}])
def test_a_run_that_says_too_little_is_another_one(held, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(held))
    told = message_of(TrainingError, lambda: claim(tmp_path, {"train": {"seed": 1}}))
    assert "holds a run with seed None, not 1; give another output folder" in told


@pytest.mark.parametrize(
    "line", ["5", "[]", "{}", "null", '{"step": null}', '{"step": "x"}', "[" * 9000, '{"step": 1e999}']
)
def test_broken_lines_of_a_log_are_dropped_on_the_way_and_told_in_a_report(line, tmp_path):
    path = tmp_path / "log.jsonl"
    for step in range(3):
        add_row(path, {"step": step, "loss": 0.5})
    path.write_bytes(
        path.read_bytes() + f"{line}\n".encode() + b'{"step": 1, "loss": 0.25, "crc32": "00000000"}\n\xff\n'
    )
    assert "cannot read" in message_of(InputError, lambda: read_log(path))
    rewind(path, 2)
    assert read_log(path) == [{"step": 0, "loss": 0.5}, {"step": 1, "loss": 0.5}]
    path.write_text(f"{line}\n")
    assert "line 1 is damaged" in message_of(InputError, lambda: read_log(path))


def test_training_without_memory_says_what_to_ask_less_of(pipe, store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, "recorded", 4, MemoryError)
        told = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    assert "out of memory; give a smaller batch_size and another output folder" in told
    assert (tmp_path / "checkpoint.safetensors").exists()
    with pytest.raises(InputError, match="out of memory; less"), memory_told("less"):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="inconsistent"), memory_told("less"):
        raise RuntimeError("inconsistent")
