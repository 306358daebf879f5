"""What a store's index says of it, and in what two of them differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from guidefold.config import TrajectoryConfig
from guidefold.errors import InputError, StoreError

LONGEST = 80  # characters of a value in a message


def check_header(header: Mapping[str, Any]) -> None:
    """Raise InputError unless the header says what a store needs to know."""
    if not isinstance(header.get("model"), str) or not isinstance(header.get("config"), dict):
        raise InputError(
            "a store's header lacks 'model' or 'config'; give a fingerprint and TrajectoryConfig.to_dict()"
        )
    TrajectoryConfig.from_dict(header["config"])


def check_same(stored: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise StoreError that names the first difference between two headers."""
    for key, old, new in differences(stored, wanted):
        raise StoreError(
            f"the store {folder} was made with {key} = {old}, this run has {key} = {new}; "
            "use the same settings to go on, or a new folder"
        )


def differences(stored: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the dotted key and both values, as text, of everything that differs between two headers."""
    for key in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, f"{prefix}{key}.")
        elif key not in stored or key not in wanted or old != new:
            before, now = (brief(repr(header[key])) if key in header else "nothing" for header in (stored, wanted))
            yield f"{prefix}{key}", before, now


def brief(text: str) -> str:
    """Return a text, or its beginning: a list of prompts would fill the screen."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text):,} characters)"
