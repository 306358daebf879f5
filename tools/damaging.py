"""Damage every file of a run, a bit or a cut at a time, and see whether it is told; used by `breaking.py`."""

import contextlib
import shutil
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any


def damaged(path: Path, random: Random, how: str) -> str:
    """Flip a bit of a file, or cut it, and return where."""
    data = bytearray(path.read_bytes())
    place = random.randrange(len(data))
    if how == "flip":
        bit = random.randrange(8)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        return f"bit {bit} of byte {place}"
    path.write_bytes(data[:place])
    return f"cut at byte {place}"


def files_of(folder: Path) -> list[str]:
    """Return the files of a folder that are read again: a report and a card are for people."""
    found = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [name for name in found if Path(name).name not in ("report.html", "README.md")]


def fate(whole: Path, copy: Path, name: str, random: Random, how: str, read: Callable[[Path, str], Any]) -> str:
    """Damage one file of a copy of a run, and tell what came of it: `told`, `harmless` or what went wrong.

    `read` returns everything that depends on the file, to compare with what it returns of the whole run.
    """
    from guidefold.errors import GuidefoldError

    shutil.copytree(whole, copy)
    place = damaged(copy / name, random, how)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            same = read(copy, name) == read(whole, name)
        except GuidefoldError as error:
            return "told" if "\n" not in str(error) else f"{name}, {place}: several lines"
        except BaseException as error:
            return f"{name}, {place}: {type(error).__name__}: {error}"
        finally:
            shutil.rmtree(copy)
    if same or (how == "cut" and name == "log.jsonl"):  # a log that ends early is one of an earlier moment
        return "harmless"
    return "told" if any(str(copy) in str(one.message) for one in warned) else f"{name}, {place}: silent"


def half_run(pipe: Any, store: Path, run: Path) -> None:
    """Leave a training that was interrupted, with all that a run may hold: an evaluation too, and pictures."""
    runs, known = import_module("runs"), import_module("test_gallery")
    from guidefold.evaluation.gallery import save_results

    batch = runs.RecordedStates.batch

    def batch_or_stop(self: Any, step: int) -> Any:
        if step == 4:
            raise KeyboardInterrupt
        return batch(self, step)

    runs.RecordedStates.batch = batch_or_stop
    try:
        with contextlib.suppress(KeyboardInterrupt):
            runs.run(pipe, run, store)
    finally:
        runs.RecordedStates.batch = batch
    save_results(run, known.results(), known.pictures())


def reading(pipe: Any, store: Path, again: Path) -> Callable[[Path, str], Any]:
    """Return a function that reads what depends on a file of a run, in plain values that can be compared."""
    runs = import_module("runs")
    from guidefold.distillation.log import LOG, read_log
    from guidefold.evaluation.gallery import load_pictures
    from guidefold.evaluation.results import Evaluation
    from guidefold.keeping.hub import describe, from_pretrained

    def adapter(folder: Path) -> Any:
        found = from_pretrained(folder)
        return describe(found), [value.numpy().tobytes() for value in found.state_dict().values()]

    def pixels(row: Any) -> list[bytes]:
        return [image.tobytes() for image in row.images.values()]

    def read(run: Path, name: str) -> Any:
        if name.startswith(("best/", "last/")):
            return adapter(run / name.partition("/")[0])
        if name.startswith(("pictures/", "evaluation.json")):
            found = Evaluation.load(run / "evaluation.json")
            return found, [(one.prompt, one.guidance_scale, pixels(one)) for one in load_pictures(run, found)]
        if name == LOG:
            return read_log(run / name)
        shutil.rmtree(again, ignore_errors=True)  # the checkpoint and run.json: go on from there
        shutil.copytree(run, again)
        runs.run(pipe, again, store)
        return adapter(again / "last")

    return read
