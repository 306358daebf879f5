"""Folders and files that a user names: what fails there is one line, and before any work where that can be."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

from guidefold.errors import InputError
from guidefold.texts import reason

PARTIAL = ".partial"
SEAL = "sha256"
STALE = 3600.0  # seconds after which nobody is still writing a draft


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Tell what the disk refuses in one line. Raises InputError that names the path."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose another output, or make room there"
        ) from error


def named(path: str | Path) -> Path:
    """Return a path. Raises InputError for an empty one, which would be the current folder."""
    if not str(path):
        raise InputError("the output has an empty name; give the name of a folder or file")
    return Path(path)


def make_folder(folder: str | Path) -> Path:
    """Make a folder and try to write in it. Raises InputError if that fails, or for no name at all."""
    folder = named(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder, suffix=PARTIAL):  # which no other process takes for somebody's file
            return folder


def exists(path: str | Path) -> bool:
    """Tell whether there is anything at a path. Raises InputError where that cannot be told, as without the right."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InputError(f"cannot look at {path}: {error.strerror}; give a path that can be read") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no path: {error}") from error
    return True


def check_plain(path: Path) -> None:
    """Raise InputError unless a path is free or a plain file: nothing is put in the place of anything else."""
    with writing(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "a device, pipe or socket"
        raise InputError(f"cannot write {path}: it is {kind}; give the name of a file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file to write to, which then takes the place of `path`: a reader sees the old or the new one.

    Its name cannot be foretold and it is made by us alone, so that no planted link is followed; it is on the disk
    before it is moved. What fails leaves the old file. Raises OSError, and InputError where `path` is no plain file.
    """
    check_plain(path)
    draft = path.with_name(f".{uuid4().hex}{PARTIAL}")
    try:
        draft.open("xb").close()
        yield draft
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def sweep(folder: Path, *, older: float = STALE) -> None:
    """Remove the drafts that a killed process left in a folder, if they are `older` than so many seconds."""
    for draft in folder.glob(f".{'?' * 32}{PARTIAL}"):
        with suppress(OSError):
            if stat.S_ISREG(draft.lstat().st_mode) and time.time() - draft.lstat().st_mtime >= older:
                draft.unlink()


def replace_text(path: str | Path, text: str) -> Path:
    """Write a text file whole or not at all, making its folder; a reader sees the old file or the new one.

    Raises InputError where the disk refuses it, or something else than a file is there.
    """
    path, data = named(path), text.encode("utf-8")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_bytes(data)
    return path


def read_json(path: str | Path, what: str) -> Any:
    """Return the JSON of a file. Raises InputError that says what could not be read, and why."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {what} from {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read {what} from {path}: it is damaged ({reason(error)})") from error


def read_object(path: str | Path, what: str) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError that says what could not be read."""
    values = read_json(path, what)
    if not isinstance(values, dict):
        raise InputError(f"cannot read {what} from {path}: it holds no JSON object")
    return values


def digest(values: Mapping[str, Any]) -> str:
    """Return the sha256 of JSON, whatever its order and spaces."""
    plain = json.loads(json.dumps(dict(values)))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with their checksum beside them."""
    return {**values, SEAL: digest(values)}


def unsealed(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return sealed values without their checksum. Raises InputError where one is there and does not fit."""
    rest = {name: value for name, value in values.items() if name != SEAL}
    if SEAL in values and values[SEAL] != digest(rest):
        raise InputError(f"{what} is damaged: its checksum does not fit")
    return rest
