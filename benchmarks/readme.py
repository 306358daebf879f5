"""The README's figures: tables and sentences filled from the JSON under benchmarks/results; see `tables`."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from pages import load, table

README = Path(__file__).parents[1] / "README.md"
TEACHERS = {"": "U-Net, text", "-dit": "DiT, classes", "-sd3": "joint attention, text"}
INTRO = (
    "Three small models come with guidefold, trained from scratch, and for each an adapter of the default design, "
    "trained for {minutes} minutes on one CPU core, recording not counted, at scales up to {high:g}, so that 8 is new "
    "to it. Pictures are judged on all {classes} classes, or on {prompts} prompts, names in styles that neither model "
    "nor adapter has seen them in: how often the judge picks the right name among {among}, which it does for {real} of "
    "real pictures ([all figures and their commands](docs/benchmarks.md)):"
)
STEP = (
    "A step with the adapter takes {adapter} times a bare one for one image and {many} for 16; CFG takes {cfg} and "
    "{cfg_many} times. The design adds no work to any layer: on the full set of SDXL's layers {launches} launches to "
    "{bare:,} of a step, {sdxl:.2%} more parameters ({sd21:.2%} on SD 2.1)."
)
RACE = (
    "In {steps} steps of training on the U-Net it recovers {film:.0%} of guidance; all weights trained in its place "
    "{whole model:.0%}, a LoRA {LoRA:.0%}, the paper's designs {paper's offset:.0%} and {paper's cross-attention:.0%}, "
    "each at a learning rate that was tried briefly."
)
DERIVED = (
    "At scales {scales} the U-Net's adapter, untouched, recovers {fine-tuned} on a model fine-tuned from it, {LoRA} "
    "with a LoRA and {ControlNet} with a ControlNet."
)
MINUTES = {"": 12, "-dit": 18, "-sd3": 16}  # of training, as the progress bar told them
FORMS = {"top1": ".0%", "frechet": ".1f"}
SEEN = 6.0  # the highest scale that the adapters were trained at
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def listed(values: Iterable[str]) -> str:
    """Write values as a list."""
    *others, last = values
    return f"{', '.join(others)} and {last}" if others else last


def headline() -> str:
    """Return the README's table of the bundled adapters, and what a step of each costs."""
    found = {kind: load(f"retrieval{kind}") for kind in TEACHERS}
    entries = {kind: entry["results"] for kind, entry in found.items() if entry is not None}
    some = entries[""]
    told = INTRO.format(
        minutes=listed(str(MINUTES[kind]) for kind in TEACHERS), high=SEEN, among=some["among"],
        classes=entries["-dit"]["prompts"], prompts=some["prompts"],
        real=listed(dict.fromkeys(f"{entry['real']['value']:.0%}" for entry in entries.values())),
    )  # fmt: skip
    three = "none / CFG / adapter"
    columns = ("model", "scale", "guidance recovered", f"right name among {some['among']}: {three}")
    rows = [row for kind, entry in entries.items() for row in rows_of(kind, entry)]
    return "\n\n".join(
        [
            textwrap.fill(told, 120),
            table((*columns, f"Fréchet distance: {three}"), rows),
            textwrap.fill(f"{cost()} {race()} {derived()}", 120),
        ]
    )


def rows_of(kind: str, judged: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a teacher's lines of the table."""
    entry = load(f"adapter{kind}")
    assert entry is not None
    found = {(row["variant"], row["guidance_scale"]): row for row in judged["rows"]}
    rows = []
    for scale in sorted({scale for _, scale in found} - {1.0}):
        three = [found["none", 1.0], found["cfg", scale], found["adapter", scale]]
        recovered = entry["results"]["recovered_by_scale"][str(scale)]
        shares = (" / ".join(f"{one[name]['value']:{form}}" for one in three) for name, form in FORMS.items())
        rows.append((TEACHERS[kind], f"{scale:g}", f"{recovered:.0%}", *shares))
    return rows


def cost() -> str:
    """Say what a step takes, and what the default design costs on models of usual size."""
    launches, parameters = load("launches"), load("parameters")
    assert launches is not None and parameters is not None
    sdxl, counts = launches["results"]["SDXL"], parameters["results"]
    shares = {name: counts[f"{name} film"]["0"]["share"] for name in ("sdxl", "sd21")}
    return STEP.format(**step_times(), launches=sdxl["folded_adds"], bare=sdxl["bare"], **shares)


def race() -> str:
    """Say how much of guidance the default and other methods recover after equal training."""
    entry = load("race")
    assert entry is not None
    found: dict[str, list[float]] = {}
    for row in entry["results"]["rows"]:
        found.setdefault(row["variant"], []).append(row["recovered"])
    return RACE.format(
        steps=entry["results"]["budget"]["steps"], **{name: mean(shares) for name, shares in found.items()}
    )


def derived() -> str:
    """Say what the base's adapter recovers on models derived from the base, at every scale that was judged."""
    entry = load("derived")
    assert entry is not None
    rows = {model: found["base's"] for model, found in entry["results"]["models"].items()}
    told = {model: " / ".join(f"{row['recovered']:.0%}" for row in some) for model, some in rows.items()}
    return DERIVED.format(scales=" / ".join(f"{row['guidance_scale']:g}" for row in rows["LoRA"]), **told)


def step_times() -> dict[str, str]:
    """Return how many times a bare step the adapter's and CFG's take on each teacher, for one image and for many."""
    speeds = load("speed-cpu-float32")
    assert speeds is not None
    found = {}
    for told, count in (("", 1), ("many", 16)):
        cases = [speeds["results"][f"bundled{kind}:{count}"] for kind in TEACHERS]
        found[told or "adapter"] = listed(f"{one['adapter_over_bare']['median']:.2f}" for one in cases)
        found[f"cfg_{told}".strip("_")] = listed(f"{cfg_over_bare(one):.2f}" for one in cases)
    return found


def cfg_over_bare(speed: dict[str, Any]) -> float:
    return speed["milliseconds"]["cfg"]["median"] / speed["milliseconds"]["bare"]["median"]


def fill_readme() -> None:
    """Put the headline between the README's markers."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    README.write_text(f"{before}{MARKS[0]}\n{headline()}\n{MARKS[1]}{after}", encoding="utf-8")
