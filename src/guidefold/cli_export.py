"""The options of `guidefold export`, as the other commands' are made."""

from pathlib import Path
from typing import Any

from guidefold.options import number, path, positive
from guidefold.parsing import add_call, add_command, add_conditions, add_model


def add_export(commands: Any) -> None:
    command = add_command(commands, "export", "write an adapter's deltas at one guidance scale as a LoRA file")
    command.add_argument("adapter", metavar="ADAPTER", help="an adapter's folder or hub name, or bundled")
    command.add_argument("--guidance-scale", type=number, metavar="X", required=True, help="the scale to write it for")
    text = "kohya for UNets, diffusers (PEFT) for others; default: what most programs read"
    command.add_argument("--format", choices=("kohya", "diffusers"), dest="style", help=text)
    output = {"type": path, "default": Path("adapter.safetensors"), "metavar": "FILE"}
    command.add_argument("--output", **output, help="file to write (default: %(default)s)")
    steps = {"type": positive(int), "metavar": "N", "default": 20}
    command.add_argument("--sampling-steps", **steps, help="denoising steps to judge it with (default: %(default)s)")
    add_model(command)
    add_call(command)
    add_conditions(command, required=False)
