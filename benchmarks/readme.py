"""The README's figures: tables and sentences filled from the JSON under benchmarks/results; see `tables`."""

import textwrap
from pathlib import Path
from typing import Any

from pages import kept, load, table

README = Path(__file__).parents[1] / "README.md"
AIM = 0.97
COST = (
    "It was trained for 73 minutes on its teacher's trajectories, 60 on its own, twice 70 on both, and twice 76 with "
    "invented prompts, on one CPU core each, for a denoiser of 6 million parameters. Of CFG's gain in CLIP "
    "score it keeps {low:.1%} to {high:.1%}{aim}. It also adapts the convolutions, which costs "
    "time: it has {share:.0%} as many parameters as so small a network, and a step of 16 images takes {bundled:.2f} "
    "times a bare one; with the default adapter, {default:.2f}. One image at a time, "
    "CFG takes {single:.2f} times as long as the bundled adapter."
)
CLASSES = (
    "The bundled class-conditional transformer, 4 million parameters, and an adapter of the default design, trained "
    "for {minutes} minutes on one CPU core at scales up to {high:g}, so that 8 is new to it. A step with it takes "
    "{one:.2f} times a bare one for one image and {many:.2f} times for 16, CFG {cfg_one:.2f} and {cfg_many:.2f} times. "
    "Of real pictures the judge names the class for {real:.0%} "
    "([all figures and their commands](docs/benchmarks.md)):"
)
DEFAULT = (
    "The default design adds no work to any layer: on the full set of SDXL's layers {launches} launches to {bare:,} "
    "of a step, {sdxl:.2%} more parameters ({sd21:.2%} on SD 2.1). On the text-to-image teacher, trained for {minutes} "
    "minutes instead of hours, it recovers {recovered:.0%} of guidance but keeps only {low:.0%} to {high:.0%} of the "
    "gain in CLIP score, at {one:.2f} times a bare step for one image and {many:.2f} times for 16."
)
MINUTES = {"film": 21, "bundled-dit": 18}  # of training, as the progress bar told them
SEEN = 6.0  # the highest scale that the class-conditional teacher's adapter was trained at
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def headline(entry: dict[str, Any]) -> str:
    """Return the README's table of the bundled adapter."""
    results = entry["results"]
    scales: dict[float, dict[str, dict[str, Any]]] = {}
    for row in results["rows"]:
        scales.setdefault(row["guidance_scale"], {})[row["variant"]] = row
    rows = []
    for scale, one in scales.items():
        recovered = results["recovered_by_scale"][str(scale)]
        line = [f"{scale:g}", f"{one['cfg']['passes']:g} and {one['adapter']['passes']:g}", f"{recovered:.0%}"]
        for metric, form in (("frechet", ".1f"), ("clip_score", ".1f")):
            line.append(" / ".join(f"{one[name][metric]['value']:{form}}" for name in ("none", "cfg", "adapter")))
        rows.append(line)
    three = "none / CFG / adapter"
    columns = ("scale", "passes a step", "guidance recovered", f"Fréchet distance: {three}", f"CLIP score: {three}")
    text = (
        f"The bundled text-to-image adapter, on {len(results['prompts'])} prompts that neither it nor its teacher has "
    )
    text = textwrap.fill(text + "seen:", 120) + "\n\n" + table(columns, rows)
    shares = [share["value"] for _, share in kept(results).values() if share is not None]
    bundled, default = (load(f"speed-cpu-float32{name}") for name in ("-bundled", ""))
    assert bundled is not None and default is not None
    one = bundled["results"]["bundled:16"]
    cost = {"bundled": one["adapter_over_bare"]["median"], "share": one["adapter_share"]}
    cost["single"] = bundled["results"]["bundled:1"]["cfg_over_adapter"]["median"]
    cost["default"] = default["results"]["demo:16"]["adapter_over_bare"]["median"]
    aim = "" if min(shares) >= AIM else f"; the aim is {AIM:.0%} at every scale"
    told = textwrap.fill(COST.format(low=min(shares), high=max(shares), aim=aim, **cost), 120)
    return "\n\n".join([classes_told(), text, told, default_told()])


def classes_told() -> str:
    """Return the README's table of the class-conditional teacher's adapter."""
    entry, judged = load("adapter-dit"), load("retrieval-dit")
    assert entry is not None and judged is not None
    found = {(row["variant"], row["guidance_scale"]): row for row in judged["results"]["rows"]}
    rows = []
    for scale in sorted({scale for _, scale in found} - {1.0}):
        three = [found["none", 1.0], found["cfg", scale], found["adapter", scale]]
        rows.append(
            (
                f"{scale:g}",
                f"{entry['results']['recovered_by_scale'][str(scale)]:.0%}",
                " / ".join(f"{one['top1']:.0%}" for one in three),
                " / ".join(f"{one['frechet']:.1f}" for one in three),
            )
        )
    three = "none / CFG / adapter"
    among, real = judged["results"]["among"], judged["results"]["real"]
    times = step_times("speed-cpu-float32", "bundled-dit")
    told = CLASSES.format(minutes=MINUTES["bundled-dit"], high=SEEN, among=among, real=real, **times)
    columns = ("scale", "guidance recovered", f"class named among {among}: {three}", f"Fréchet distance: {three}")
    return textwrap.fill(told, 120) + "\n\n" + table(columns, rows)


def default_told() -> str:
    """Say what the default design costs on models of usual size, and what it reaches on the text-to-image teacher."""
    launches, parameters, film = load("launches"), load("parameters"), load("adapter-film")
    assert launches is not None and parameters is not None and film is not None
    sdxl, counts = launches["results"]["SDXL"], parameters["results"]
    shares = {name: counts[f"{name} film"]["0"]["share"] for name in ("sdxl", "sd21")}
    keeps = [share["value"] for _, share in kept(film["results"]).values() if share is not None]
    recovered = list(film["results"]["recovered_by_scale"].values())
    shares |= {"low": min(keeps), "high": max(keeps), "recovered": sum(recovered) / len(recovered)}
    times = step_times("speed-cpu-float32", "demo")
    told = DEFAULT.format(
        launches=sdxl["folded_adds"], bare=sdxl["bare"], minutes=MINUTES["film"], **shares, **times
    )  # fmt: skip
    return textwrap.fill(told, 120)


def step_times(name: str, case: str) -> dict[str, float]:
    """Return how many times a bare step the adapter's and CFG's take, for one image and for many."""
    speeds = load(name)
    assert speeds is not None
    found = {}
    for told, count in (("one", 1), ("many", 16)):
        one = speeds["results"][f"{case}:{count}"]
        found |= {told: one["adapter_over_bare"]["median"], f"cfg_{told}": cfg_over_bare(one)}
    return found


def cfg_over_bare(speed: dict[str, Any]) -> float:
    return speed["milliseconds"]["cfg"]["median"] / speed["milliseconds"]["bare"]["median"]


def fill_readme(entry: dict[str, Any]) -> None:
    """Put the headline between the README's markers."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    README.write_text(f"{before}{MARKS[0]}\n{headline(entry)}\n{MARKS[1]}{after}", encoding="utf-8")
