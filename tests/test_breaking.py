"""A little of what `tools/breaking.py` does a lot of: random command lines, flipped bits and cut files."""

import functools
from pathlib import Path
from random import Random

import pytest
from tools import breaking, damaging

from guidefold.keeping.hub import save_pretrained

LINES = 80
DAMAGES = 3  # to each file, and way


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Path]:
    return breaking.work(tmp_path_factory.mktemp("work"))


@pytest.mark.filterwarnings("ignore")
def test_a_random_command_line_ends_well(places, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    counts: dict[int, int] = {}
    with breaking.kept_models():
        for arguments in breaking.lines(7, LINES, places, tmp_path / "out"):
            code, told = breaking.ending(arguments)
            assert code in breaking.GOOD, (arguments, told)
            assert code != 2 or told.rstrip("\n").splitlines()[-1].startswith("guidefold: error: "), (arguments, told)
            counts[code] = counts.get(code, 0) + 1
    assert min(counts.get(0, 0), counts.get(2, 0)) > LINES / 10  # both what works and what does not was tried


@pytest.fixture(scope="module")
def half(places, tmp_path_factory) -> tuple[Path, damaging.Callable]:
    folder, pipe = tmp_path_factory.mktemp("half"), breaking.import_module("zoo").pipeline()
    damaging.half_run(pipe, places["store"], folder / "run")
    return folder / "run", functools.cache(damaging.reading(pipe, places["store"], folder / "again"))


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_damage_is_told_or_changes_nothing(how, half, tmp_path):
    run, read = half
    names, fates = damaging.files_of(run), []
    assert len(names) >= 8 and {"checkpoint.safetensors", "run.json", "log.jsonl", "best/config.json"} <= set(names)
    for name in names * DAMAGES:
        fates.append(damaging.fate(run, tmp_path / "copy", name, Random(f"{how} {len(fates)}"), how, read))
    assert set(fates) <= {"told", "harmless"}, fates
    assert fates.count("told") > len(fates) / 2


def test_every_bit_of_an_adapter_counts(places, tmp_path):
    adapter, random = breaking.import_module("test_hub").build()[2], Random(1)
    run = save_pretrained(adapter, tmp_path / "run" / "best").parent
    read = functools.cache(damaging.reading(None, places["store"], tmp_path / "again"))
    name, copy = "best/model.safetensors", tmp_path / "copy"
    fates = [damaging.fate(run, copy, name, random, "flip", read) for _ in range(40)]
    assert set(fates) <= {"told", "harmless"} and fates.count("harmless") < 4
