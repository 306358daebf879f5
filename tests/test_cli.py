"""The command line: instant help, options from the config dataclasses, honest exit codes."""

import functools
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from guidefold import cli, commands
from guidefold.config import AdapterConfig, EvalConfig, TrainConfig, TrajectoryConfig
from guidefold.errors import ModelError

MINIMAL = {
    "demo": [],
    "record": ["--conditions", "prompts.txt"],
    "train": ["--store", "store"],
    "distill": ["--conditions", "prompts.txt"],
    "merge": ["one", "other"],
    "sample": ["a fox"],
    "observe": ["a fox"],
    "eval": [],
    "report": ["run"],
    "ui": [],
    "push": ["me/folded"],
    "info": [],
}
FUNCTIONS = {"eval": "evaluate", "ui": "page"}
GROUPS = {
    "record": [TrajectoryConfig],
    "train": [AdapterConfig, TrainConfig, TrajectoryConfig],
    "distill": [AdapterConfig, TrainConfig, TrajectoryConfig],
    "eval": [EvalConfig],
}


class Recorder(dict[str, Any]):
    """What the command line handed over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: BaseException | None = None) -> None:
        self.outcome = outcome
        for name in (FUNCTIONS.get(name, name) for name in MINIMAL):
            monkeypatch.setattr(commands, name, self.replace(getattr(commands, name)))

    def replace(self, function: Any) -> Any:
        """Return a stand-in with the function's signature."""

        @functools.wraps(function)
        def stand_in(**options: Any) -> None:
            self.update(options)
            if self.outcome:
                raise self.outcome

        return stand_in


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must exit with 2 and one line on stderr, and return that line."""
    try:
        status = cli.main(arguments)
    except SystemExit as exit_:
        status = exit_.code
    captured = capsys.readouterr()
    assert status == 2 and captured.out == ""
    assert captured.err.startswith("guidefold: error: ") and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--width", "0", "--store", "x"]])
def test_help_and_mistakes_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom guidefold.cli import main\n"
        f"try: main({arguments})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr


def test_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "guidefold", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.startswith("guidefold ")


@pytest.mark.parametrize("name", MINIMAL)
def test_command_gets_exactly_what_it_takes(name: str, received: Recorder) -> None:
    assert cli.main([name, *MINIMAL[name]]) == 0
    function = inspect.signature(getattr(commands, FUNCTIONS.get(name, name)))
    assert received.keys() == function.parameters.keys()


@pytest.mark.parametrize("name", GROUPS)
def test_every_field_is_an_option_with_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0
    for item in (item for group in GROUPS[name] for item in fields(group)):
        assert f"--{item.name.replace('_', '-')}" in text
        assert item.metadata["help"] in text


def test_options_reach_their_config(received: Recorder) -> None:
    options = "--rank 3 --target-modules a b --gradient-checkpointing --learning-rate 1e-4 --keep 2 --seed 5 --dry-run"
    assert cli.main(["distill", "--conditions", "prompts.txt", *options.split()]) == 0
    assert received["adapter"] == AdapterConfig(rank=3, target_modules=("a", "b"))
    assert received["train"] == TrainConfig(gradient_checkpointing=True, learning_rate=1e-4, seed=5)
    assert received["trajectory"] == TrajectoryConfig(keep=2, seed=5)
    assert received["dry_run"] is True and received["conditions"] == Path("prompts.txt")
    assert cli.main(["train", "--store", "first", "own", "--rank", "3"]) == 0
    assert received["store"] == [Path("first"), Path("own")]
    assert cli.main(["train", "--store", "first", "--init", "bundled"]) == 0
    assert received["adapter"] is None and received["train"] == TrainConfig(init="bundled")


def test_defaults_are_those_of_the_configs(received: Recorder) -> None:
    assert cli.main(["eval"]) == 0
    assert received["evaluation"] == EvalConfig()
    assert (received["model"], received["adapter"], received["device"]) == ("bundled", "bundled", None)


def test_a_flag_can_be_taken_back(received: Recorder, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text("gradient_checkpointing = true\n", encoding="utf-8")
    cli.main(["train", "--store", "s", "--config", str(config)])
    assert received["train"].gradient_checkpointing is True
    cli.main(["train", "--store", "s", "--config", str(config), "--no-gradient-checkpointing"])
    assert received["train"].gradient_checkpointing is False


def test_sample_takes_prompts_and_scales(received: Recorder) -> None:
    cli.main(["sample", "a fox", "a cat", "--guidance-scale", "1", "4.5", "--no-adapter", "--compare"])
    assert received["prompts"] == ["a fox", "a cat"] and received["guidance_scale"] == [1.0, 4.5]
    assert received["adapter"] is None and received["compare"] is True


def test_arguments_of_the_call_are_gathered(received: Recorder) -> None:
    given = ["height=48", "prompt_2=a cat", "clean=true", "sizes=[1, 2]", "text=a=b", "height=64"]
    cli.main(["sample", *(part for one in given for part in ("--call", one)), "a fox"])
    assert received["call"] == {"height": 64, "prompt_2": "a cat", "clean": True, "sizes": [1, 2], "text": "a=b"}
    cli.main(["sample", "a fox"])
    assert received["call"] == {}


def test_a_bundled_model_is_called_as_its_adapter_was_trained_unless_nothing_is_sampled(received: Recorder) -> None:
    model = ["--model", "bundled-sd3"]
    cli.main(["sample", "a fox", *model])
    assert received["call"] == {"max_sequence_length": 1}
    cli.main(["sample", "a fox", *model, "--call", "max_sequence_length=9"])
    assert received["call"] == {"max_sequence_length": 9}
    cli.main(["train", "--store", "first", *model])
    assert received["call"] == {}


def test_an_option_wins_over_the_config_file(received: Recorder, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text('rank = 4\nsteps = 10\nkeep = 3\nsource = "online"\n', encoding="utf-8")
    arguments = ["train", "--conditions", "p.txt", "--config", str(config), "--rank", "5"]
    assert cli.main(arguments) == 0
    assert received["adapter"] == AdapterConfig(rank=5)
    assert received["train"] == TrainConfig(steps=10, source="online")
    assert received["trajectory"] == TrajectoryConfig(keep=3)


def test_what_a_config_writes_the_command_line_reads(received: Recorder, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(EvalConfig(scales=(3.0,), images=7).to_toml(), encoding="utf-8")
    assert cli.main(["eval", "--config", str(config)]) == 0
    assert received["evaluation"] == EvalConfig(scales=(3.0,), images=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ranks = 4", "unknown setting 'ranks'"),
        ("rank = ", "cannot read settings"),
        ("rank = 1.5", "rank is 1.5; give a whole number"),
        ("[adapter]\nrank = 1", "unknown setting 'adapter'"),
    ],
)
def test_a_bad_config_file_is_one_line(
    text: str, message: str, received: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(text, encoding="utf-8")
    assert message in fails(["train", "--store", "s", "--config", str(config)], capsys)
    assert not received


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["recrod"], "invalid choice: 'recrod'"),
        (["train"], "needs --store"),
        (["train", "--source", "online"], "needs --conditions"),
        (["record"], "--conditions"),
        (["train", "--store", "s", "--width", "0"], "width is 0"),
        (["train", "--store", "s", "--rank", "x"], "argument --rank"),
        (["train", "--store", "s", "--design", "x"], "argument --design"),
        (["train", "--store", "s", "--ran", "4"], "unrecognized arguments"),
        (["eval", "--scales", "2", "-3"], "scales is -3.0"),
        (["eval", "--dtype", "int8"], "argument --dtype"),
        (["eval", "--config", "absent.toml"], "absent.toml"),
        (["sample", "a fox", "--sampling-steps", "0"], "not a positive whole number"),
        (
            ["sample", "a fox", "--seed", "9" * 23],
            f"'{'9' * 23}' is no seed; give a whole number from 0 to {2**63 - 1}",
        ),
        (["sample", "a fox", "--seed", "-1"], "'-1' is no seed"),
        (["sample", "a fox", "--seed", "x"], "'x' is no seed"),
        (["eval", "--scales", "4", "4"], "scales has 4 more than once"),
        (["eval", "--call", "height"], "'height' is not NAME=VALUE"),
        (["eval", "--call", "a b=1"], "'a b=1' is not NAME=VALUE"),
        (["demo", "--minutes", "inf"], "not a positive number"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    arguments: list[str], message: str, received: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(arguments, capsys)
    assert not received


def test_our_errors_are_one_line_and_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Recorder(monkeypatch, ModelError("no such\nmodel"))
    assert fails(["info"], capsys) == "guidefold: error: no such model\n"


def test_an_interruption_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Recorder(monkeypatch, KeyboardInterrupt())
    assert cli.main(["record", "--conditions", "p.txt", "--output", "my-store"]) == 130
    line = capsys.readouterr().err.strip()
    assert "kept in my-store; run the same command again to resume" in line and "\n" not in line


def test_a_bug_shows_its_traceback_and_exits_with_1() -> None:
    code = (
        "import sys\nfrom guidefold import cli, commands\n"
        "def broken(**_): raise KeyError('a bug')\n"
        "commands.info = broken\nsys.exit(cli.main(['info']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1 and "Traceback" in result.stderr and "KeyError: 'a bug'" in result.stderr
