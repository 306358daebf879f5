"""Break guidefold on purpose: random command lines, flipped bits and cut files; `python tools/breaking.py --help`.

Every command line must end with 0, 2 or 130; every damage must be told or change nothing. The tests run a little of
each, this script as much as is asked for.
"""

import argparse
import contextlib
import functools
import io
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random

ROOT = Path(__file__).parent.parent
GOOD = (0, 2, 130)
MEMORY = 24 * 2**30  # what a process may map: a setting that asks for more must be told, not swap

WHOLE = ["0", "1", "2", "3", "5", "-1", "1.5", "1e3", "nan", "x", "", "\u0967", str(10**30)]
HUGE = [str(2**62), "1001"]
# of these a large number is an honest wish for a long run
LONG = {"trajectories", "images", "steps", "bootstrap", "batch_size", "record_batch", "eval_batch", "validation"}
REAL = ["0", "0.5", "1", "2", "3.5", "-1", "nan", "inf", "-inf", "1e308", "1e-320", "4.0000001", "x", ""]
TEXTS = [
    "a fox", "", " ", "é🦊", "\x1b[31mred", "two\nlines", "\udcff", "y" * 300, "bundled", "(a+)+$", "[", "cpu", "meta",
]  # fmt: skip
CALLS = [
    "eta=0.5", "clip_skip=1", "height=8", "width=8", "hight=3", "prompt=x", "eta=", "eta", "=1", "guidance_scale=NaN",
    "guidance_rescale=1e999", "latents=[1]", "callback_on_step_end=1", "x=" + "[" * 9000, "negative_prompt=\udcff",
]  # fmt: skip


def work(folder: Path) -> dict[str, Path]:
    """Make what command lines may name: things whole, damaged, foreign, unreadable and absent."""
    zoo = import_module("zoo")
    runs, sampling = import_module("runs"), import_module("sampling")
    from guidefold.distillation.run import record

    pipe, made = zoo.pipeline(), {}
    pipe.save_pretrained(folder / "model")
    store = record(pipe, runs.PROMPTS, folder / "store", runs.DRAWN).folder
    runs.run(pipe, folder / "run", store, steps=2)
    sampling.build(pipe).save_pretrained(folder / "adapter")
    (folder / "prompts.txt").write_text("\n".join(runs.PROMPTS), encoding="utf-8")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "nested.toml").write_text("rank = " + "[" * 9000, encoding="utf-8")
    (folder / "good.toml").write_text("seed = 3\n", encoding="utf-8")
    (folder / "empty").mkdir()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "README.md").write_text("mine", encoding="utf-8")
    (folder / "foreign" / "config.json").write_text('{"a": ' + "[" * 9000, encoding="utf-8")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    for name in ("model", "store", "run", "adapter", "prompts.txt", "latin.txt", "nested.toml", "good.toml", "empty",
                 "foreign", "loop", "absent", "y" * 300, "\udcff", "run/run.json"):  # fmt: skip
        made[name] = folder / name
    return made


def base(name: str, places: dict[str, Path], out: Path) -> list[str]:
    """Return a command line of one command that works, and takes a moment."""
    model = ["--model", str(places["model"])]
    recorded = ["--trajectories", "2", "--sampling-steps", "2", "--keep", "1", "--record-batch", "2", "--shard", "2"]
    learnt = ["--steps", "2", "--batch-size", "2", "--validation", "1", "--validate-every", "1", "--rank", "2"]
    learnt += ["--width", "8"]
    prompts, output = ["--conditions", str(places["prompts.txt"])], ["--output", str(out)]
    few = ["--images", "4", "--eval-batch", "4", "--bootstrap", "2", "--scales", "2", "--sampling-steps", "2"]
    adapter = str(places["adapter"])
    return {
        "observe": ["a fox", *model],
        "record": [*model, *prompts, *output, *recorded],
        "train": [*model, *output, "--store", str(places["store"]), *learnt],
        "distill": [*model, *prompts, *output, *recorded, *learnt],
        "merge": [adapter, adapter, *output],
        "export": [adapter, *model, *prompts, "--guidance-scale", "4", "--output", str(out / "lora.safetensors")],
        "sample": ["a fox", *model, "--adapter", adapter, *output, "--sampling-steps", "2"],
        "eval": [*model, "--adapter", adapter, *prompts, *output, *few],
        "report": [str(places["run"]), "--output", str(out / "report.html")],
        "push": [adapter, "me/folded"],
        "info": [adapter],
    }[name]


def values(action: argparse.Action, random: Random, places: dict[str, Path]) -> list[str]:
    """Return random values of an option, most of them of its own type."""
    if action.nargs == 0:
        return []
    metavar = action.metavar
    if action.choices:
        pool = [*map(str, action.choices), "x"]
    elif metavar == "N":
        pool = WHOLE if action.dest in LONG else WHOLE + HUGE
    elif metavar == "X":
        pool = REAL
    elif metavar == "NAME=VALUE":
        pool = CALLS
    elif metavar in ("FILE", "FOLDER", "FILE.toml", "RUN"):
        pool = [*map(str, places.values()), "", "/dev/null", "/proc/nowhere"]
    else:
        pool = [*TEXTS, *map(str, places.values())]
    return random.choices(pool, k=random.randint(1, 2) if action.nargs == "+" else 1)


def lines(seed: int, count: int, places: dict[str, Path], out: Path) -> Iterator[list[str]]:
    """Yield random command lines, the same for the same seed."""
    from guidefold.cli import parser

    (commands,) = (one.choices for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    for number in range(count):
        random = Random(f"{seed} {number}")
        name = random.choice([one for one in commands if one not in ("demo", "ui")])  # which take minutes, or serve
        arguments = base(name, places, random.choice([out / str(number), out / "again"]))
        if random.random() < 0.2:
            arguments[0] = random.choice([*TEXTS, *map(str, places.values())])
        known = [one for one in commands[name]._actions if one.option_strings and one.dest != "help"]
        for action in random.sample(known, min(len(known), random.randint(0, 3))):
            arguments += [random.choice(action.option_strings), *values(action, random, places)]
        yield [name, *arguments]


def ending(arguments: list[str]) -> tuple[int, str]:
    """Run one command line in this process; return its exit code, 1 for a bug, and what it wrote to stderr."""
    from guidefold.cli import main

    told = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            code = main(arguments)
        except SystemExit as exit_:
            code = exit_.code
        except BaseException:
            return 1, traceback.format_exc()
    return int(code or 0), told.getvalue()


@contextlib.contextmanager
def kept_models() -> Iterator[None]:
    """Load each model once, and judge by pixels: what command lines are about is not how long loading takes."""
    from guidefold import models
    from guidefold.evaluation.judge import Judge

    before = models.load_pipeline, models.load_judge
    models.load_pipeline = functools.cache(models.load_pipeline)
    models.load_judge = lambda *_: Judge(images=lambda pictures: pictures.flatten(1)[:, :8])
    try:
        yield
    finally:
        models.load_pipeline, models.load_judge = before


def main() -> None:
    """Run a campaign and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("lines", "flip", "cut"))
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that long")
    given = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "src")]
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "critical", "DIFFUSERS_VERBOSITY": "critical"}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    start, found, bad = time.monotonic(), Counter(), []
    with tempfile.TemporaryDirectory() as folder, kept_models():
        for told, place in campaign(given.what, given.count, given.seed, Path(folder)):
            found[told] += 1
            if place:
                bad.append(place)
                print(place, flush=True)
            if time.monotonic() - start > given.seconds:
                break
    seconds, counts = time.monotonic() - start, dict(sorted(found.items()))
    print(f"{given.what} {found.total()}, seed {given.seed}: {counts}; {len(bad)} bad; {seconds:.0f} s", flush=True)
    sys.exit(bool(bad))


def campaign(what: str, count: int, seed: int, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what came of each try, and a text for what must not be."""
    if what == "lines":
        places = work(folder)
        for arguments in lines(seed, count, places, folder / "out"):
            began = time.process_time()
            code, told = ending(arguments)
            slow = f" took {time.process_time() - began:.0f} s" if time.process_time() - began > 60 else ""
            one_line = code != 2 or told.rstrip("\n").count("guidefold: error: ") == 1
            bad = "" if code in GOOD and one_line and not slow else f"{code}{slow}: {arguments}\n{told}"
            yield f"exit {code}", bad
        return
    zoo, runs = import_module("zoo"), import_module("runs")
    from guidefold.distillation.run import record

    pipe = zoo.pipeline()
    store, run = record(pipe, runs.PROMPTS, folder / "store", runs.DRAWN).folder, folder / "run"
    damaging = import_module("tools.damaging")
    damaging.half_run(pipe, store, run)
    read, names = functools.cache(damaging.reading(pipe, store, folder / "again")), damaging.files_of(run)
    for number in range(count):
        random = Random(f"{seed} {number}")
        name = names[number % len(names)]
        told = damaging.fate(run, folder / str(number), name, random, what, read)
        known = told in ("told", "harmless")
        yield (f"{Path(name).suffix} {told}", "") if known else ("bad", told)


if __name__ == "__main__":
    main()
