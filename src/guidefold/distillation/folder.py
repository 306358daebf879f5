"""A run's folder: whose it is, what may lie in it, and that only one process trains in it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from guidefold.errors import InputError, TrainingError
from guidefold.files import PARTIAL, exists, make_folder, read_object, sealed, sweep, unsealed, writing
from guidefold.processes import place
from guidefold.texts import visible

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks
    fcntl = None

RUN = "run.json"
HOW = ("accumulation", "gradient_checkpointing", "compile")  # a batch is computed, not what comes out: may change


def is_own(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a folder is this run's already, and not a new one.

    Raises TrainingError for another run's, and InputError for one that cannot be looked at.
    """
    path = folder / RUN
    # before the run is looked for: what another process of this run writes comes after it
    names = names_in(folder)
    if exists(path):
        check_same(folder, read_run(path), wanted)
        return True
    if folder.is_file():
        raise TrainingError(f"{folder} is a file; give another output folder")
    if any(not is_ours(name) for name in names):
        raise TrainingError(f"{folder} is not empty and holds no run; give another output folder")
    return False


def names_in(folder: Path) -> list[str]:
    """Return what lies in a folder, nothing where there is none. Raises InputError where that cannot be told."""
    try:
        return [one.name for one in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise InputError(f"cannot look at {folder}: {error.strerror}; give a path that can be read") from error


def read_run(path: Path) -> dict[str, Any]:
    """Return what run.json says. Raises TrainingError for a damaged one."""
    try:
        return unsealed(read_object(path, "a run"), str(path))
    except InputError as error:
        raise TrainingError(f"{path} is damaged ({error}); give another output folder") from error


def check_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise TrainingError unless a folder holds the run that is wanted."""
    for group, values in wanted.items():
        before = found.get(group)
        if not isinstance(values, dict):
            pairs = [(group, before, values)]
        else:
            known = before if isinstance(before, dict) else {}
            pairs = [(key, known.get(key), value) for key, value in values.items()]
        for key, old, new in pairs:
            if old != new and key not in HOW:
                raise TrainingError(
                    f"{folder} holds a run with {key} {visible(repr(old))}, not {new!r}; give another output folder"
                )


def claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Make a folder a run's own, unless it is already.

    Raises TrainingError for another run's, and InputError for a place that cannot be written.
    """
    if is_own(folder, wanted):
        return
    path = make_folder(folder) / RUN
    draft = folder / f".{uuid4().hex}{PARTIAL}"
    with writing(path):
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(json.dumps(sealed(wanted), indent=2) + "\n")
            os.link(draft, path)  # which fails where another process was faster
        except FileExistsError:
            is_own(folder, wanted)
        except (PermissionError, NotImplementedError, AttributeError):  # where a disk knows no hard links
            draft.replace(path)
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def is_ours(name: str) -> bool:
    """Tell whether a file may lie where a run starts: a store made before, or what a killed process left."""
    return name == "store" or name.endswith(PARTIAL)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder for a while; the kernel gives it back when this process ends, however it ends.

    Of processes that train together, the first holds it for all. Raises TrainingError while another one holds it.
    """
    if fcntl is None or place()[0] > 0:
        yield
        return
    with writing(folder / RUN):
        file = (folder / RUN).open("r+b")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"another process is training in {folder}; wait until it has ended, or give another output folder"
            ) from error
        except OSError:
            pass  # a disk without locks, as some networks have
        for part in (folder, folder / "best", folder / "last"):
            sweep(part, older=0)
        yield
