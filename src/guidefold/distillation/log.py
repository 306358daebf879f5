"""The log of a training: a line of JSON for each step, with a checksum, so that a damaged line is not taken for one."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guidefold.errors import InputError, TrainingError
from guidefold.files import exists, replace_text
from guidefold.texts import reason

LOG = "log.jsonl"
CHECK = "crc32"
LARGEST = 1e100  # of a number that can be drawn


def add_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to the log. Raises TrainingError if the disk is full."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, CHECK: check_of(row)}) + "\n")
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; make room and run again") from error


def check_of(row: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(dict(row), sort_keys=True).encode()):08x}"


def read_row(line: str) -> dict[str, Any]:
    """Return what a line of the log says. Raises InputError for a damaged one; one without a checksum is believed."""
    try:
        row = json.loads(line)
        known, numbers = row.pop(CHECK, None), [row["step"], row.get("loss"), row.get("validation")]
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(reason(error)) from error
    if known is not None and known != check_of(row):
        raise InputError("its checksum does not fit")
    if numbers[0] is None or not all(number is None or is_plain(number) for number in numbers):
        raise InputError("a step or loss that is no number")
    return row


def is_plain(value: Any) -> bool:
    """Tell whether a value is a number that can be drawn."""
    return isinstance(value, (int, float)) and not math.isnan(value) and -LARGEST <= value <= LARGEST


def rewind(path: Path, step: int) -> None:
    """Drop the lines of steps that will be taken again, and what a killed run or a bad disk left of others."""
    if not exists(path):
        return
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give another output folder") from error
    replace_text(path, "".join(f"{line}\n" for line in text.split("\n") if is_before(line, step)))


def is_before(line: str, step: int) -> bool:
    """Tell whether a line of the log is whole and of an earlier step."""
    try:
        return read_row(line)["step"] < step
    except InputError:
        return False


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the log of a training, but for half a line that a killed run may leave; nothing where there is none.

    Raises InputError that names the first damaged line.
    """
    if not exists(path):
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; delete it for a report without it") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line and not (number == len(lines) and not line.endswith("}")):
            try:
                rows.append(read_row(line))
            except InputError as error:
                raise InputError(f"{path}, line {number} is damaged ({error}); delete that line") from error
    return rows
