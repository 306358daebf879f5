"""Regular expressions of strangers, matched in bounded time: Python's engine cannot be told to stop."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence

from guidefold.errors import ModelError

SECONDS = 10.0
MATCHING = """
import json, re, sys
pattern, names = json.load(sys.stdin)
json.dump([name for name in names if re.fullmatch(pattern, name)], sys.stdout)
"""


def full_matches(pattern: str, names: Sequence[str]) -> set[str]:
    """Return the names that a regular expression matches in full.

    Raises ModelError where it is none, or takes so long that it would seem to hang: such as `(a+)+`, which tries every
    way of cutting a name.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ModelError(f"target_modules {pattern!r} is no regular expression: {error}") from error
    if not re.search(r"[*+{]", pattern):  # nothing repeats, so it cannot take long
        return {name for name in names if re.fullmatch(pattern, name)}
    # a process of its own, because it can be ended
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MATCHING],
            input=json.dumps([pattern, list(names)]),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"target_modules {pattern!r} takes longer than {SECONDS:g} s to match; give names or a simpler expression"
        ) from error
    return set(json.loads(done.stdout))
