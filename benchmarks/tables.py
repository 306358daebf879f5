"""Write docs/benchmarks.md and the README's table from the JSON under benchmarks/results.

No figure is typed by hand but the time that the bundled adapter was trained for.

python benchmarks/tables.py
"""

import textwrap
from pathlib import Path
from typing import Any

from pages import budget_of, interval, interval_of, kept, load, made, table

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
README = Path(__file__).parents[1] / "README.md"
CAVEAT = (
    "At this small budget the paper's claim is not seen: trajectories win at high scales, noised data at low ones and\n"
    "on the student's own states. Noised data has fresh noise at every step; the store has 1,280 states, visited twice."
)
AIM = 0.97
COST = (
    "It was trained for 38 minutes on one CPU core, for a denoiser of 6 million parameters. Of CFG's gain in CLIP "
    "score it keeps {low:.0%} to {high:.0%}, where there is one{aim}. It also adapts the convolutions, which costs "
    "time: it has {share:.0%} as many parameters as so small a network, and a step of 16 images takes {bundled:.2f} "
    "times a bare one; with the default adapter, {default:.2f}."
)
EARLIER = (
    "Three passes, designs, noised data and the default adapter's times are of commits before the prediction's layer "
    "was adapted: what they say of how much is recovered compares like with like, and is lower than it is now."
)
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def teacher(entry: dict[str, Any]) -> str:
    results = entry["results"]
    rows = [
        (
            f"{row['guidance_scale']:g}",
            interval(row["frechet"]),
            interval(row["clip_score"], ".1f"),
            f"{row['precision']:.2f}",
            f"{row['recall']:.2f}",
        )
        for row in results["rows"]
    ]
    text = f"{results['images']} images a scale, prompts of held-out names, {results['steps']} steps. {made(entry)}\n\n"
    grid = "\n\n![Pictures of the bundled teacher over guidance scales](../benchmarks/results/teacher.png)"
    return text + table(("guidance scale", "Fréchet distance", "CLIP score", "precision", "recall"), rows) + grid


def adapter(entry: dict[str, Any]) -> str:
    results = entry["results"]
    rows = []
    for row in results["rows"]:
        recovered = (
            results["recovered_by_scale"].get(str(row["guidance_scale"])) if row["variant"] == "adapter" else None
        )
        own = (
            results["recovered_on_own_states"].get(str(row["guidance_scale"])) if row["variant"] == "adapter" else None
        )
        shares = [f"{value:.1%}" if value is not None else "" for value in (recovered, own)]
        distances = [f"{row[name]:.3f}" if row[name] is not None else "" for name in ("ssim", "feature_distance")]
        rows.append(
            (
                f"{row['guidance_scale']:g}",
                row["variant"],
                f"{row['passes']:g}",
                f"{row['seconds_per_image']:.3f}",
                *shares,
                interval(row["frechet"]),
                interval(row["clip_score"], ".1f"),
                *distances,
            )
        )
    columns = (
        "scale",
        "variant",
        "passes",
        "s / image",
        "recovered",
        "on own states",
        "Fréchet distance",
        "CLIP score",
        "SSIM to CFG",
        "feature distance to CFG",
    )
    return (
        f"{len(results['prompts'])} held-out prompts, {results['sampling_steps']} steps. {made(entry)}\n\n"
        + table(columns, rows)
        + "\n\nBy timestep, at all scales; the noisiest steps have most of it and decide the figures above:\n\n"
        + by_timestep(results)
        + "\n\n"
        + gains(results)
    )


def by_timestep(results: dict[str, Any]) -> str:
    chosen = list(results["recovered_by_timestep"].items())[1::3]
    return table(("timestep", *(step for step, _ in chosen)), [("recovered", *(f"{share:.0%}" for _, share in chosen))])


def gains(results: dict[str, Any]) -> str:
    rows = [
        (f"{scale:g}", f"{gain:.1f}", "no gain" if share is None else interval(share, ".0%"))
        for scale, (gain, share) in kept(results).items()
    ]
    return table(("scale", "CFG's gain in CLIP score", "share of it that the adapter keeps"), rows)


def designs(entry: dict[str, Any]) -> str:
    results, rows = entry["results"], []
    for row in sorted(results["rows"], key=lambda row: -row["recovered"]):
        rows.append(
            (
                row["design"],
                row["rank"],
                row["source"],
                f"{row['parameters']:,}",
                f"{row['recovered']:.1%}",
                f"{row['recovered_on_own_states']:.1%}",
            )
        )
    budget = ", ".join(f"{name} {value}" for name, value in results["budget"].items())
    columns = ("design", "rank", "source", "parameters", "recovered", "on own states")
    return f"Equal budget ({budget}) and equal size. {made(entry)}\n\n" + table(columns, rows)


def data(entry: dict[str, Any]) -> str:
    results = entry["results"]
    rows = [
        (row["data"], f"{row['recovered']:.1%}", f"{row['recovered_on_own_states']:.1%}") for row in results["rows"]
    ]
    budget = ", ".join(f"{name} {value}" for name, value in results["budget"].items())
    columns = ("trained on", "recovered", "on own states")
    return f"Equal budget ({budget}). {made(entry)}\n\n{table(columns, rows)}\n\n{CAVEAT}"


def output(entry: dict[str, Any]) -> str:
    """Return the table of adapters with and without the layer that makes the prediction."""
    results = entry["results"]
    rows = [
        (row["output"], *(f"{share:.1%}" for share in row["recovered_by_scale"].values()), f"{row['recovered']:.1%}")
        for row in results["rows"]
    ]
    scales = results["rows"][0]["recovered_by_scale"]
    columns = ("the layer that makes the prediction", *(f"at {float(scale):g}" for scale in scales), "recovered")
    budget = ", ".join(f"{name} {value}" for name, value in results["budget"].items())
    text = "Adapted, it has strength s - 1 and those before it tanh(s - 1); else they have s - 1. "
    return f"{text}Equal budget ({budget}). {made(entry)}\n\n{table(columns, rows)}"


def speed(entry: dict[str, Any]) -> str:
    rows = [
        (
            case,
            f"{one['parameters'] / 1e6:.0f} M",
            f"{one['adapter_share']:.2%}",
            *(f"{one['milliseconds'][name]['median']:.1f}" for name in ("cfg", "adapter", "bare")),
            interval_of(one["adapter_over_bare"]),
            interval_of(one["cfg_over_adapter"]),
        )
        for case, one in entry["results"].items()
    ]
    columns = (
        "denoiser:batch",
        "parameters",
        "adapter",
        "CFG ms",
        "adapter ms",
        "bare ms",
        "adapter / bare",
        "CFG / adapter",
    )
    return (
        f"Rank {entry['made']['rank']}, {entry['made']['dtype']}; medians, and quartiles of the ratios within a round. "
        f"{made(entry)}\n\n" + table(columns, rows)
    )


def parameters(entry: dict[str, Any]) -> str:
    rows = []
    for name, by_rank in entry["results"].items():
        rows.append((name, *(f"{one['parameters'] / 1e6:.1f} M ({one['share']:.2%})" for one in by_rank.values())))
    ranks = next(iter(entry["results"].values()))
    columns = ("denoiser and design", *(f"rank {rank}" for rank in ranks))
    return f"Published configurations, counted on the meta device. {made(entry)}\n\n" + table(columns, rows)


def negative(entry: dict[str, Any]) -> str:
    """Return the table of an adapter that is conditioned on negative prompts."""
    results = entry["results"]
    names = ("with_negative_prompt", "with_negative_prompt_but_not_told", "without_negative_prompt")
    rows = [(f"{row['guidance_scale']:g}", *(f"{row[name]:.1%}" for name in names)) for row in results["rows"]]
    columns = ("scale", "negative prompt, told", "the same states, told there is none", "no negative prompt")
    text = "Guidance recovered on held-out prompts and negative prompts that were not trained on; the teacher has the "
    text += f"negative prompt in the first two columns. {budget_of(results)} {made(entry)}\n\n" + table(columns, rows)
    one = results["images"]
    far = one["teachers_apart"]
    names = {
        "the student told the negative prompt": ("student_to_negative_prompted_teacher", "student_to_plain_teacher"),
        "the student told there is none": (
            "untold_student_to_negative_prompted_teacher", "untold_student_to_plain_teacher",
        ),
    }  # fmt: skip
    rows = [(name, *(f"{one[key] / far:.2f}" for key in keys)) for name, keys in names.items()]
    rows = [
        (*row, f"{one[key]:.0%}") for row, key in zip(rows, ("nearer_student", "nearer_untold_student"), strict=True)
    ]
    columns = (
        "distance of final latents",
        "to the teacher with it",
        "to the teacher without",
        "images nearer to the first",
    )
    text += "\n\nAt scale 4, mean squared, as a multiple of the distance between the two teachers:\n\n"
    told, plain = (one[key] for key in names["the student told the negative prompt"])
    nearer = "nearer to the teacher with it" if told < plain else "still nearer to the teacher without it"
    return text + table(columns, rows) + f"\n\nTold the negative prompt, the student ends {nearer}."


def pag(entry: dict[str, Any]) -> str:
    """Return the table of three passes folded into one."""
    results = entry["results"]
    rows = [(f"{row['guidance_scale']:g}", f"{row['recovered']:.1%}") for row in results["rows"]]
    passes = f"{results['teacher_passes_per_step']:g} passes a step become {results['student_passes_per_step']:g}"
    text = f"CFG with perturbed attention guidance at scale {results['pag_scale']:g}: {passes}. {budget_of(results)} "
    return text + f"{made(entry)}\n\n" + table(("guidance scale", "recovered"), rows)


SECTIONS = {
    "teacher": ("Guidance on the bundled teacher", teacher),
    "adapter": ("The bundled adapter against CFG", adapter),
    "negative": ("Negative prompts", negative),
    "pag": ("Three passes folded into one", pag),
    "designs": ("Designs and sources", designs),
    "output": ("Strengths of the layers", output),
    "data": ("Recorded trajectories against noised data", data),
    "speed-cpu-float32": ("Time of one sampling step", speed),
    "speed-cpu-float32-bundled": ("Time of one sampling step with the bundled adapter", speed),
    "speed-cpu-float32-large": ("Time of one sampling step, large denoisers", speed),
    "parameters": ("Extra parameters on Stable Diffusion 2.1 and XL", parameters),
}


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
    text = f"The bundled adapter on {len(results['prompts'])} prompts that neither it nor its teacher has seen "
    text += "([all figures and their commands](docs/benchmarks.md)):\n\n" + table(columns, rows)
    shares = [share["value"] for _, share in kept(results).values() if share is not None]
    bundled, default = (load(f"speed-cpu-float32{name}") for name in ("-bundled", ""))
    assert bundled is not None and default is not None
    one = bundled["results"]["bundled:16"]
    cost = {"bundled": one["adapter_over_bare"]["median"], "share": one["adapter_share"]}
    cost["default"] = default["results"]["demo:16"]["adapter_over_bare"]["median"]
    aim = "" if min(shares) >= AIM else f"; the aim is {AIM:.0%} at every scale"
    return text + "\n\n" + textwrap.fill(COST.format(low=min(shares), high=max(shares), aim=aim, **cost), 120)


def fill_readme(entry: dict[str, Any]) -> None:
    """Put the headline between the README's markers."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    README.write_text(f"{before}{MARKS[0]}\n{headline(entry)}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> None:
    parts = ["# Benchmarks\n\nWritten by `python benchmarks/tables.py` from the JSON in `benchmarks/results`.", EARLIER]
    for name, (title, section) in SECTIONS.items():
        if (entry := load(name)) is not None:
            parts.append(f"## {title}\n\n{section(entry)}")
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if (entry := load("adapter")) is not None:
        fill_readme(entry)
    print(f"written to {PAGE} and {README}")


if __name__ == "__main__":
    main()
