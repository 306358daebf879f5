"""What options of the command line may hold, beyond what argparse knows."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from guidefold.config import LARGEST


class Gather(argparse.Action):
    """Gather NAME=VALUE pairs in a dict."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, getattr(namespace, self.dest) | dict([values]))


def assignment(text: str) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE: the picture in @FILE, else JSON, else text."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    if value.startswith("@"):
        return name, picture(value[1:])
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
    except RecursionError as error:
        raise argparse.ArgumentTypeError(f"{name} is nested too deeply") from error


def path(text: str) -> Path:
    """Return a path. Raises ArgumentTypeError for no name, which would be the current folder."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file or folder")
    return Path(text)


def number(text: str) -> float:
    """Return a number. Raises ArgumentTypeError unless it is finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def picture(path: str) -> Any:
    """Return the picture in a file. Raises ArgumentTypeError where there is none."""
    from PIL import Image

    try:
        with Image.open(path) as found:
            return found.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's for a broken PNG is the last
        raise argparse.ArgumentTypeError(
            f"no picture in {path} ({error}); text that starts with @ goes in quotes"
        ) from error


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """Return a converter that refuses what is not a positive number."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive {'whole ' if kind is int else ''}number")
        return value

    return convert


def seed(text: str) -> int:
    """Return a seed. Raises ArgumentTypeError unless it is a whole number that settings take as one."""
    if not (text.isascii() and text.isdecimal()) or int(text) >= LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; give a whole number from 0 to {LARGEST - 1}")
    return int(text)
