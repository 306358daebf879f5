"""Where a command's words go: a terminal of few characters, a full disk, a reader that leaves, as behind `| head`."""

import io
import os
import sys
from typing import Any

from guidefold.errors import InputError


def escape_unknown() -> None:
    """Show what stdout and stderr cannot encode escaped, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence(file: Any) -> None:
    """Let whatever else is written to a file go nowhere: nobody reads it, and the work goes on."""
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), file.fileno())
    except (OSError, ValueError):  # it is no file of the system's
        return


def finish(*, quiet: bool = False) -> None:
    """Write out what is still on its way to stdout. Raises InputError where it cannot be written, unless `quiet`."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
    except OSError as error:
        silence(sys.stdout)
        if quiet:
            return
        raise InputError(f"cannot write what there is to tell: {error.strerror}; send it elsewhere") from error
