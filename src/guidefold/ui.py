"""What a person sees: progress on stderr, results on stdout, and plain lines where there is no terminal.

A terminal that knows few characters gets the others escaped, and so do texts that would move its cursor. Where nobody
reads any more, as behind `| head`, the work goes on in silence.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from guidefold.processes import place
from guidefold.streams import silence
from guidefold.texts import visible

PLAIN_INTERVAL = 30.0  # seconds between lines in a log
PLAIN_WIDTH = 10_000  # a table in a file or pipe is never folded


class Paper(Console):
    """A console whose reader may leave."""

    def on_broken_pipe(self) -> None:
        silence(self.file)


class Bar(Protocol):
    """What `progress` hands out."""

    def advance(self, amount: int = 1, text: str = "") -> None:
        """Move on by `amount`; `text`, if any, replaces what is shown beside the bar."""


class TerminalBar:
    """A live bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def advance(self, amount: int = 1, text: str = "") -> None:
        self.progress.update(self.task, advance=amount)
        if text:
            self.progress.update(self.task, text=text)


class PlainBar:
    """At most one line every `PLAIN_INTERVAL` seconds, and one at the end."""

    def __init__(self, console: Console, description: str, total: int, completed: int) -> None:
        self.console, self.description, self.total, self.completed = console, description, total, completed
        self.started = self.printed = time.monotonic()
        self.text = ""

    def advance(self, amount: int = 1, text: str = "") -> None:
        self.completed += amount
        self.text = text or self.text
        if time.monotonic() - self.printed >= PLAIN_INTERVAL:
            self.printed = time.monotonic()
            self.show()

    def show(self) -> None:
        """Print where things are."""
        parts = [f"{self.completed}/{self.total}", duration(time.monotonic() - self.started), self.text]
        plain(self.console, f"{self.description}: {', '.join(filter(None, parts))}")


@contextmanager
def progress(description: str, total: int, completed: int = 0, *, console: Console | None = None) -> Iterator[Bar]:
    """Show how far a piece of work is: `with progress("Training", steps) as bar: bar.advance(text="loss 0.1")`."""
    console = console or Paper(stderr=True, quiet=place()[0] > 0)  # the first of several processes speaks for all
    if console.is_terminal or console.is_jupyter:
        with live(console) as bars:
            yield TerminalBar(bars, bars.add_task(description, total=total, completed=completed, text=""))
        return
    bar = PlainBar(console, description, total, completed)
    yield bar
    bar.show()


def live(console: Console) -> Progress:
    """Return rich's progress with our columns."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[text]}", markup=False),
    )
    return Progress(*columns, console=console)


def plain(console: Console, line: str) -> None:
    """Print a line as it is: no markup, colours or folding."""
    console.print(visible(line), markup=False, highlight=False, emoji=False, soft_wrap=True)


def say(line: str) -> None:
    """Print a line on stdout, once for all processes."""
    if place()[0] == 0:
        try:
            print(visible(line))
        except BrokenPipeError:
            silence(sys.stdout)


def error_line(error: object) -> None:
    """Print an error as one line on stderr."""
    try:
        print(f"guidefold: error: {visible(' '.join(str(error).split()))}", file=sys.stderr)
    except BrokenPipeError:
        silence(sys.stderr)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, console: Console | None = None
) -> None:
    """Print a table on stdout; all columns but the first are aligned right."""
    console = console or Paper()
    folded = console.is_terminal or console.is_jupyter
    shape = box.HEAVY_HEAD if folded else None
    grid = Table(title=Text(visible(title)), title_justify="left", box=shape, pad_edge=folded)
    for number, column in enumerate(columns):
        grid.add_column(Text(column), justify="right" if number else "left")
    for row in rows:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    if not folded:
        console = Paper(file=console.file, width=PLAIN_WIDTH)
    console.print(grid)


def size(count: float) -> str:
    """Return a number of bytes for people: 1.3 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return number(count, unit)
        count /= 1000
    return number(count, "TB")


def duration(seconds: float) -> str:
    """Return a time span for people: 4 min 10 s."""
    if seconds < 9.95:
        return number(seconds, "s")
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def number(value: float, unit: str) -> str:
    """Return a value with one decimal below ten, none above, and its unit."""
    return f"{value:.1f} {unit}".replace(".0 ", " ") if value < 9.95 else f"{value:.0f} {unit}"
