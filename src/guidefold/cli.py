"""The command line: its options are the fields of the config dataclasses, so nothing is said twice.

Nothing heavy is imported until the arguments are known to be good, so that `--help` and mistakes are answered at once.
"""

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from guidefold import __version__
from guidefold.cli_export import add_export
from guidefold.config import AdapterConfig, Config, EvalConfig, HoldingConfig, TrainConfig, TrajectoryConfig
from guidefold.errors import GuidefoldError, InputError
from guidefold.options import number, path, positive, seed
from guidefold.parsing import (
    Groups,
    Parser,
    add_adapter,
    add_call,
    add_command,
    add_conditions,
    add_dry_run,
    add_model,
    add_output,
)
from guidefold.streams import escape_unknown, finish
from guidefold.texts import reason, visible

KEPT = {
    "demo": "what is finished is kept in {output}; run the same command again to resume",
    "record": "finished shards are kept in {output}; run the same command again to resume",
    "train": "the last checkpoint is kept in {output}; run the same command again to resume",
    "distill": "finished shards and the last checkpoint are kept in {output}; run the same command again to resume",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 2 for a user's mistake, 130 if interrupted; a bug is left to Python: traceback, 1."""
    escape_unknown()
    try:
        options = vars(parser().parse_args(arguments))
    except SystemExit:
        finish(quiet=True)
        raise
    command, groups, config = (options.pop(key) for key in ("command", "groups", "config"))
    try:
        call(command, settings(options, groups, config))
        finish()
    except GuidefoldError as error:
        from guidefold.ui import error_line

        error_line(error)
        return 2
    except KeyboardInterrupt:
        kept = KEPT.get(command, "run the same command again to start over").format(output=options.get("output"))
        print(f"\nguidefold: interrupted; {visible(kept)}", file=sys.stderr)
        return 130
    return 0


def call(command: str, options: dict[str, Any]) -> None:
    """Hand over to the function that does the work, torch and all."""
    if command == "train":
        check_source(options["train"].source, options["store"], options["conditions"])
    from guidefold import commands
    from guidefold.demo.bundle import CALLS

    recorded = command == "train" and options["train"].source == "recorded"  # which samples nothing
    if "call" in options and not recorded:
        options["call"] = CALLS.get(options["model"], {}) | options["call"]
    getattr(commands, command)(**options)


def check_source(source: str, store: list[Path] | None, conditions: Path | None) -> None:
    """Raise InputError unless training has what its states come from."""
    if source == "recorded" and store is None:
        raise InputError("training on recorded states needs --store; or give --source online and --conditions")
    if source == "online" and conditions is None:
        raise InputError("training with --source online needs --conditions")


def settings(options: dict[str, Any], groups: Groups, config: Path | None) -> dict[str, Any]:
    """Gather loose options into config objects; an option that was given wins over the config file."""
    values = read_config(config, groups) if config else {}
    names = {item.name for group in groups.values() for item in fields(group)}
    values |= {name: options[name] for name in names & options.keys()}
    rest: dict[str, Any] = {name: value for name, value in options.items() if name not in names}
    made: dict[str, Config | None] = {key: group.from_dict(select(values, group)) for key, group in groups.items()}
    if "adapter" in made and not select(values, AdapterConfig):
        made["adapter"] = None  # the default shape, or that of the adapter to start from
    return rest | made


def select(values: dict[str, Any], group: type[Config]) -> dict[str, Any]:
    """Return the values that are fields of a group; groups may share one, as they do the seed."""
    return {item.name: values[item.name] for item in fields(group) if item.name in values}


def read_config(path: Path, groups: Groups) -> dict[str, Any]:
    """Read a TOML file of settings. Raises InputError if it cannot be read or holds a key no group knows."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read settings from {path}: {reason(error)}") from error
    known = sorted({item.name for group in groups.values() for item in fields(group)})
    if unknown := sorted(values.keys() - set(known)):
        raise InputError(f"unknown setting {unknown[0]!r} in {path}; choose from {', '.join(known)}")
    return values


def parser() -> Parser:
    """Return the parser of the whole command line."""
    root = Parser(prog="guidefold", description="Fold classifier-free guidance into one forward pass.")
    root.add_argument("--version", action="version", version=f"guidefold {__version__}")
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    making = (add_demo, add_observe, add_record, add_train, add_distill, add_merge, add_export)
    for add in (*making, add_sample, add_ui, add_eval, add_report, add_push, add_info):
        add(commands)
    return root


def add_demo(commands: Any) -> None:
    command = add_command(commands, "demo", "train and judge an adapter for a bundled teacher, and write a report")
    teachers = "unet and sd3, text to image, or dit, a class-conditional transformer (default: %(default)s)"
    command.add_argument("--teacher", choices=("unet", "dit", "sd3"), default="unet", help=teachers)
    add_output(command, "demo-run", "folder of the run")
    command.add_argument("--minutes", type=positive(float), metavar="X", help="time to spend; default: as it needs")
    command.add_argument("--quick", action="store_true", help="a smaller run, only to see that everything works")


def add_observe(commands: Any) -> None:
    command = add_command(commands, "observe", "watch how a pipeline does guidance, and whether it can be folded")
    command.add_argument("prompt", metavar="PROMPT", help="what to sample, for a few steps")
    add_model(command)
    add_call(command)
    scale = {"type": number, "metavar": "X", "default": 7.5}
    command.add_argument("--guidance-scale", **scale, help="scale to watch at (default: %(default)s)")


def add_record(commands: Any) -> None:
    groups: Groups = {"trajectory": TrajectoryConfig, "holding": HoldingConfig}
    command = add_command(commands, "record", "record guided trajectories of a teacher into a store", groups)
    add_model(command)
    add_call(command)
    add_conditions(command, required=True)
    add_output(command, "runs/store", "folder of the store")
    add_dry_run(command)


def add_train(commands: Any) -> None:
    groups: Groups = {"adapter": AdapterConfig, "train": TrainConfig, "trajectory": TrajectoryConfig}
    groups["holding"] = HoldingConfig
    command = add_command(commands, "train", "train an adapter on a store, or on states made on the fly", groups)
    add_model(command)
    add_call(command)
    text = "one or more stores to train on, for --source recorded"
    command.add_argument("--store", type=path, nargs="+", metavar="FOLDER", help=text)
    add_conditions(command, required=False)
    add_output(command, "runs/adapter", "folder of the run")
    add_dry_run(command)


def add_distill(commands: Any) -> None:
    groups: Groups = {"adapter": AdapterConfig, "trajectory": TrajectoryConfig, "train": TrainConfig}
    groups["holding"] = HoldingConfig
    command = add_command(commands, "distill", "record and train in one go", groups)
    add_model(command)
    add_call(command)
    add_conditions(command, required=True)
    add_output(command, "runs/adapter", "folder of the run")
    add_dry_run(command)


def add_merge(commands: Any) -> None:
    command = add_command(commands, "merge", "average adapters that were trained from the same start")
    command.add_argument("adapters", nargs="+", metavar="ADAPTER", help="folders or hub names of at least two adapters")
    text = "how much each counts; default: all alike"
    command.add_argument("--shares", type=positive(float), nargs="+", metavar="X", help=text)
    add_output(command, "runs/merged", "folder of the mean")


def add_sample(commands: Any) -> None:
    groups: Groups = {"holding": HoldingConfig}
    command = add_command(commands, "sample", "sample images with one pass a step", groups)
    command.usage = f"{command.prog} [OPTION ...] PROMPT [PROMPT ...]"
    command.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to show, one image each and per scale")
    add_model(command)
    add_call(command)
    add_adapter(command)
    text = "sample without an adapter"
    command.add_argument("--no-adapter", dest="adapter", action="store_const", const=None, help=text)
    text = "one or more scales; 1 is the bare model (default: 7.5, or what the adapter was trained at)"
    command.add_argument("--guidance-scale", type=number, nargs="+", metavar="X", help=text)
    add_output(command, "runs/samples", "folder of the images")
    command.add_argument("--negative-prompt", metavar="TEXT", help="what not to show")
    add_steps(command)
    command.add_argument("--seed", type=seed, metavar="N", default=0, help="seed of the noise (default: %(default)s)")
    command.add_argument("--compare", action="store_true", help="also sample the teacher and the bare model")


def add_eval(commands: Any) -> None:
    groups: Groups = {"evaluation": EvalConfig, "holding": HoldingConfig}
    command = add_command(commands, "eval", "compare teacher, bare model and student", groups, function="evaluate")
    add_model(command)
    add_call(command)
    add_adapter(command)
    add_conditions(command, required=False)
    add_output(command, "runs/evaluation", "folder of the results")


def add_steps(command: Parser) -> None:
    steps = {"type": positive(int), "metavar": "N", "default": 20}
    command.add_argument("--sampling-steps", **steps, help="denoising steps (default: %(default)s)")


def add_ui(commands: Any) -> None:
    command = add_command(commands, "ui", "look at an adapter beside its teacher, in a browser", function="page")
    add_model(command)
    add_call(command)
    add_adapter(command)
    add_steps(command)
    port = {"type": positive(int), "metavar": "N", "default": 8080}
    command.add_argument("--port", **port, help="port of this machine to listen at (default: %(default)s)")


def add_push(commands: Any) -> None:
    command = add_command(commands, "push", "upload an adapter to the Hub, with a page that shows it")
    add_adapter(command)
    command.add_argument("repository", metavar="REPOSITORY", help="where to, such as me/sd-folded")
    text = "folder of an evaluation whose pictures and figures the page shows"
    command.add_argument("--report", type=path, metavar="FOLDER", help=text)
    command.add_argument("--private", action="store_true", help="make the repository a private one")
    text = "the base model's licence, as the Hub abbreviates it; default: what its own page there says"
    command.add_argument("--licence", metavar="TEXT", help=text)


def add_report(commands: Any) -> None:
    command = add_command(commands, "report", "write the report of a run")
    command.add_argument("run", type=path, metavar="RUN", help="folder of the run")
    command.add_argument("--output", type=path, metavar="FILE", help="default: report.html in the run")


def add_info(commands: Any) -> None:
    command = add_command(commands, "info", "tell what an adapter, a store, a run or this installation is")
    command.add_argument("target", nargs="?", metavar="TARGET", help="default: this installation")
