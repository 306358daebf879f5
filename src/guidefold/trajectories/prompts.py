"""Files of prompts, each read as what it is: `.txt`, `.jsonl`, `.json`, `.csv` and `.tsv`."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from guidefold.errors import InputError
from guidefold.texts import reason

BUNDLED, DATASET = "bundled", "dataset:"
ENGLISH = Path(__file__).parent.parent / "prompts" / "english.txt"
COLUMN = "prompt"
SHAPE = f'write one object like {{"{COLUMN}": "a fox"}}'
DELIMITERS = {".csv": ",", ".tsv": "\t"}
Conditions = Sequence[str] | Sequence[int] | str | Path


def as_conditions(conditions: Conditions) -> list[str]:
    """Return prompts or class labels from a list or a file, each once. Raises InputError for what is neither."""
    if isinstance(conditions, (str, Path)):
        return read_conditions(conditions)
    for one in conditions:
        if isinstance(one, bool) or not isinstance(one, (str, Integral)):
            raise InputError(f"a condition is {one!r}; give texts, or class labels that are whole numbers")
        checked_text(str(one), "a condition")
    return list(dict.fromkeys(map(str, conditions)))


def read_conditions(path: str | Path) -> list[str]:
    """Return the prompts of a file, each once, or of a list that has a name.

    `bundled` is guidefold's own list; `dataset:OWNER/NAME:COLUMN`, or with `:SPLIT` after it, a data set of the Hub.
    A text file has one a line, a .jsonl file a "prompt" in each line, a .json file a list of texts or of objects with a
    "prompt", a .csv or .tsv file a column of that name, or no other. Blank lines are skipped. Raises InputError for a
    file that cannot be read or holds no prompt.
    """
    if str(path) == BUNDLED:
        return read_conditions(ENGLISH)
    if str(path).startswith(DATASET):
        return from_dataset(str(path))
    path = Path(path)
    readers = {".jsonl": from_lines, ".json": from_list, ".csv": from_table, ".tsv": from_table}
    prompts = list(readers.get(path.suffix.lower(), from_text)(path, read_text(path)))
    if not prompts:
        raise InputError(f"{path} holds no prompts; write one prompt per line")
    return list(dict.fromkeys(prompts))


def from_dataset(text: str) -> list[str]:
    """Return a column of a data set of the Hub. Raises InputError where it cannot be read or holds no texts."""
    name, _, rest = text.removeprefix(DATASET).partition(":")
    column, _, split = rest.partition(":")
    if not name or not column:
        raise InputError(f"{text} names no column; write dataset:OWNER/NAME:COLUMN")
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise InputError(f"{text} needs datasets; pip install 'guidefold[datasets]'") from error
    try:
        rows = load_dataset(name, split=split or "train")
        known = rows.column_names
    except Exception as error:  # what a stranger's data set may break has no end of types
        raise InputError(
            f"cannot read {text}: {reason(error)}; give a data set of the Hub that has this split"
        ) from error
    if column not in known:
        raise InputError(f"{text} has no column {column}; choose from {', '.join(known)}")
    prompts = [value.strip() for value in rows[column] if isinstance(value, str) and value.strip()]
    if not prompts:
        raise InputError(f"{text} holds no texts; give another column")
    return list(dict.fromkeys(prompts))


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file without a byte order mark. Raises InputError if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}; give a text file with one prompt per line") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder; give a text file with one prompt per line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; give a readable text file") from error


def numbered(text: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    # Not splitlines: it would also split at characters that may stand within a prompt, such as U+2028.
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in lines if line]


def from_text(path: Path, text: str) -> Iterator[str]:
    yield from (line for _, line in numbered(text))


def from_lines(path: Path, text: str) -> Iterator[str]:
    for number, line in numbered(text):
        place = f"{path}, line {number}"
        yield prompt_of(parsed(line, place, f"{SHAPE} per line"), place, f"{SHAPE} per line")


def from_list(path: Path, text: str) -> Iterator[str]:
    """Yield the prompts of a JSON list. Raises InputError for what is none."""
    advice = f'write a list of texts, or of objects like {{"{COLUMN}": "a fox"}}'
    items = parsed(text, str(path), advice) if text.strip() else []
    if not isinstance(items, list):
        raise InputError(f"{path} holds no list; {advice}")
    for number, item in enumerate(items, 1):
        yield prompt_of({COLUMN: item} if isinstance(item, str) else item, f"{path}, item {number}", advice)


def parsed(text: str, place: str, advice: str) -> Any:
    """Return what JSON text says. Raises InputError that names the place."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{place}: nested too deeply; {advice}") from error
    except ValueError as error:
        raise InputError(f"{place}: {error}; {advice}") from error


def prompt_of(value: Any, place: str, advice: str) -> str:
    """Return the prompt of an object. Raises InputError that names the place."""
    prompt = value.get(COLUMN) if isinstance(value, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise InputError(f'{place}: no text under "{COLUMN}"; {advice}')
    return checked_text(prompt.strip(), place)


def from_table(path: Path, text: str) -> Iterator[str]:
    """Yield the column of prompts of a table, whose cells may stand in quotes. Raises InputError where it is unclear.

    A table of one column needs no name above it.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=DELIMITERS[path.suffix.lower()], strict=True)
    advice = f'name one column "{COLUMN}", and put texts with separators in quotes'
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}; {advice}") from error
    names = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if len(names) > 1 and names.count(COLUMN) != 1:
        raise InputError(f'{path} has {names.count(COLUMN) or "no"} column "{COLUMN}" among {len(names)}; {advice}')
    column, named = (names.index(COLUMN), True) if COLUMN in names else (0, False)
    for line, row in rows[named:]:
        place = f"{path}, line {line}"
        if len(row) != len(names):
            raise InputError(f"{place}: {len(row)} cells where the first line has {len(names)}; {advice}")
        yield prompt_of({COLUMN: row[column]}, place, advice)


def checked_text(text: str, place: str) -> str:
    """Return a text that can be encoded. Raises InputError for half a character, as broken JSON escapes make."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{place}: half a character (U+{ord(text[error.start]):04X}) at place {error.start + 1}; write it whole"
        ) from error
    return text
