"""How commands are made of options: those of the config dataclasses, and those that many commands share."""

import argparse
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NoReturn

from guidefold.config import Config, ModelConfig
from guidefold.options import Gather, assignment, path
from guidefold.texts import visible

Groups = dict[str, type[Config]]


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"guidefold: error: {visible(' '.join(message.split()))} (see `{self.prog} --help`)\n")


def add_command(commands: Any, name: str, text: str, groups: Groups | None = None, function: str = "") -> Parser:
    """Add a command that calls `function` of guidefold.commands with the settings of its groups."""
    command = commands.add_parser(name, help=text, description=f"{text.capitalize()}.", allow_abbrev=False)
    command.set_defaults(command=function or name, groups=groups or {}, config=None)
    if groups:
        command.usage = f"{command.prog} [OPTION ...]"  # all of them are a screenful that the help repeats
        add_settings(command, groups)
    return command


def add_settings(command: Parser, groups: Groups) -> None:
    """Add a file of settings, and an option for every field of every group."""
    command.add_argument("--config", type=path, metavar="FILE.toml", help="settings; options given here win over it")
    add_fields(command, groups)


def add_fields(command: Parser, groups: Groups) -> None:
    """Add an option for every field of every group; a field that groups share is one option."""
    added: dict[str, argparse.Action] = {}
    for group in groups.values():
        section = command.add_argument_group((group.__doc__ or group.__name__).rstrip("."))
        hints = typing.get_type_hints(group)
        for item in fields(group):
            text = item.metadata["help"].replace("%", "%%")
            if item.name in added:
                added[item.name].help = f"{text}; {added[item.name].help}"
                continue
            taken = {"action": "append", "metavar": "TEXT"} if item.metadata["again"] else option(hints[item.name])
            kind = {**taken, "default": argparse.SUPPRESS, "help": text + shown(item.default)}
            added[item.name] = section.add_argument(f"--{item.name.replace('_', '-')}", **kind)


def shown(default: Any) -> str:
    """Return how a default is shown in a help text; None is explained by the text itself."""
    if default is None:
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def option(hint: Any) -> dict[str, Any]:
    """Return argparse's arguments for a field of the annotated type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return option(next(part for part in inner if part is not type(None)))
    if origin is Literal:
        return {"choices": inner}
    if origin is tuple:
        return {"nargs": "+", **option(inner[0])}
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    return {"type": hint, "metavar": {int: "N", float: "X", str: "TEXT"}[hint]}


def add_call(command: Parser) -> None:
    text = "an argument of the pipeline's call, such as height=512 or image=@FILE, for every image; may be given again"
    command.add_argument("--call", type=assignment, action=Gather, default={}, metavar="NAME=VALUE", help=text)


def add_model(command: Parser) -> None:
    text = "a diffusers folder or hub name, or bundled, bundled-dit or bundled-sd3 of guidefold (default: %(default)s)"
    command.add_argument("--model", default="bundled", metavar="MODEL", help=text)
    command.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps; default: the best there is")
    text = "of the weights; default: bfloat16 on GPUs, float32 elsewhere"
    command.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help=text)
    dress: Groups = {"dress": ModelConfig}
    command.set_defaults(groups=command.get_default("groups") | dress)
    add_fields(command, dress)


def add_adapter(command: Parser) -> None:
    text = "an adapter's folder or hub name, or bundled: the bundled model's own (default: %(default)s)"
    command.add_argument("--adapter", default="bundled", metavar="ADAPTER", help=text)


def add_conditions(command: Parser, *, required: bool) -> None:
    text = "prompts or labels: .txt with one a line, .jsonl, .json, .csv or .tsv with a column prompt; "
    text += "or bundled, a list of varied ones; or dataset:OWNER/NAME:COLUMN of the Hub"
    command.add_argument("--conditions", type=path, required=required, metavar="FILE", help=text)


def add_output(command: Parser, default: str, text: str) -> None:
    help_text = f"{text} (default: %(default)s)"
    command.add_argument("--output", type=path, default=Path(default), metavar="FOLDER", help=help_text)


def add_dry_run(command: Parser) -> None:
    text = "only tell what it would cost: teacher passes, disk, time"
    command.add_argument("--dry-run", action="store_true", help=text)
