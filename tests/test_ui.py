"""What a person sees, with and without a terminal."""

import io

import pytest
from rich.console import Console

from guidefold import ui


def paper(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    """Return a console and what it writes to."""
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, force_jupyter=False, width=100, no_color=True), file


class Clock:
    """A clock that moves by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(ui.time, "monotonic", lambda: self.now)


def test_without_a_terminal_progress_is_one_line_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, (console, file) = Clock(monkeypatch), paper()
    with ui.progress("Recording [x]", 4, 1, console=console) as bar:
        for number in range(3):
            clock.now += 1
            bar.advance(text=f"loss {number}")
    assert file.getvalue() == "Recording [x]: 4/4, 3 s, loss 2\n"


def test_without_a_terminal_lines_come_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, (console, file) = Clock(monkeypatch), paper()
    with ui.progress("Training", 100, console=console) as bar:
        for _ in range(100):
            clock.now += 1
            bar.advance()
    lines = file.getvalue().splitlines()
    assert lines == [f"Training: {n}/100, {ui.duration(n)}" for n in (30, 60, 90, 100)]


def test_work_that_fails_is_not_reported_as_finished() -> None:
    console, file = paper()
    with pytest.raises(RuntimeError), ui.progress("Training", 2, console=console):
        raise RuntimeError
    assert file.getvalue() == ""


def test_in_a_terminal_there_is_a_bar_with_count_and_text() -> None:
    console, file = paper(terminal=True)
    with ui.progress("Training [x]", 3, 1, console=console) as bar:
        bar.advance(2, text="loss [0.1]")
        bar.advance(0)
    last = file.getvalue().rsplit("Training", 1)[-1]
    assert "[x]" in last and "3/3" in last and "loss [0.1]" in last


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with ui.progress("Training", 1) as bar:
        bar.advance()
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("Training: 1/1")


def test_table_is_plain_and_never_folded_without_a_terminal() -> None:
    console, file = paper()
    ui.table("Quality", ["variant", "distance"], [["teacher" * 30, 1.25], ["[red]", 10]], console=console)
    title, head, *rows = (line.split() for line in file.getvalue().splitlines())
    assert (title, head) == (["Quality"], ["variant", "distance"])
    assert rows == [["teacher" * 30, "1.25"], ["[red]", "10"]]


def test_table_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    ui.table("Quality", ["variant"], [["teacher"]])
    captured = capsys.readouterr()
    assert "teacher" in captured.out and captured.err == ""


def test_error_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    ui.error_line(ValueError("first\n  second"))
    assert capsys.readouterr() == ("", "guidefold: error: first second\n")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1536, "1.5 kB"),
        (999_600, "1 MB"),
        (1.3e9, "1.3 GB"),
        (2e15, "2000 TB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert ui.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (250, "4 min 10 s"),
        (3599.9, "1 h 0 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert ui.duration(seconds) == text
