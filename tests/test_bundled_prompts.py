"""Prompts without a file: the bundled list, and a column of a data set of the Hub."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from tools import prompts
from zoo import message_of

from guidefold.errors import InputError
from guidefold.trajectories.prompts import ENGLISH, read_conditions


def test_the_bundled_list_is_long_varied_and_what_its_script_makes(tmp_path, monkeypatch):
    found = read_conditions("bundled")
    assert len(found) >= 2000 and len({word for line in found for word in line.split()}) > 400
    assert all(line.isascii() and 2 <= len(line.split()) <= 40 for line in found)
    monkeypatch.setattr(prompts, "OUTPUT", tmp_path / "english.txt")
    prompts.main()
    assert (tmp_path / "english.txt").read_bytes() == ENGLISH.read_bytes()


@pytest.fixture
def hub(monkeypatch):
    """Stand in for the Hub: a library `datasets` that knows one data set."""

    def load_dataset(name, split):
        if name != "me/captions":
            raise ValueError(f"{name}\nis not on the Hub")
        columns = {"caption": ["a fox ", "", None, "a cat", "a fox"], "number": [1, 2, 3, 4, 5]}
        return Table(columns, split)

    class Table(dict):
        def __init__(self, columns, split):
            super().__init__(columns)
            self.column_names, self.split = list(columns), split

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_a_column_of_a_data_set(hub):
    assert read_conditions("dataset:me/captions:caption") == ["a fox", "a cat"]
    assert read_conditions(Path("dataset:me/captions:caption:test")) == ["a fox", "a cat"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dataset:me/captions", "names no column; write dataset:OWNER/NAME:COLUMN"),
        ("dataset:me/captions:text", "has no column text; choose from caption, number"),
        ("dataset:me/captions:number", "holds no texts; give another column"),
        ("dataset:you/none:text", "cannot read dataset:you/none:text: you/none is not on the Hub"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_told(text, told, hub):
    assert told in message_of(InputError, lambda: read_conditions(text))


def test_without_the_library_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    told = message_of(InputError, lambda: read_conditions("dataset:me/captions:caption"))
    assert told.endswith("needs datasets; pip install 'guidefold[datasets]'")
