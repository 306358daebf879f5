"""Folders and files that a user names: what fails there is one line, and before any work where that can be."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from guidefold.errors import InputError


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Tell what the disk refuses in one line. Raises InputError that names the path."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose another output, or make room there"
        ) from error


def make_folder(folder: str | Path) -> Path:
    """Make a folder and try to write in it. Raises InputError if that fails."""
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder, suffix=".partial"):  # which no other process takes for somebody's file
            return folder


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError that says what could not be read."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {what} from {path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"cannot read {what} from {path}: it holds no JSON object")
    return values
