"""Write docs/benchmarks.md and the README's table from the JSON under benchmarks/results.

No figure is typed by hand but the times that adapters were trained for, in `readme.py`.

python benchmarks/tables.py
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from costs import compiling, memory, recording_memory
from pages import interval, interval_of, kept, load, made, table
from readme import README, fill_readme
from trainings import data, derived, lora, loss, negative, negatives, output, pag, race, retrieval, steps

Sections = dict[str, tuple[str, Callable[[dict[str, Any]], str]]]
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
EARLIER = (
    "These figures are of a U-Net that was bundled before: it had learnt two styles, its pictures were blurred, and "
    "its adapter was of design `low_rank`. They compare ways to train with each other. To run one again, check out the "
    "commit that it names."
)


def kind_of(entry: dict[str, Any]) -> str:
    """Return which bundled teacher figures are of, by what its name ends in."""
    return next((kind for kind in ("-dit", "-sd3") if f"bundled{kind}" in entry["made"]["command"]), "")


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
    told = "all classes" if kind_of(entry) == "-dit" else "held-out prompts"
    text = f"{results['images']} images a scale, {told}, {results['steps']} steps. {made(entry)}\n\n"
    grid = f"\n\n![Pictures of a bundled teacher over guidance scales](teacher{kind_of(entry)}.png)"
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
                interval(row["frechet"], ".1f"),
                *(f"{row[name]:.2f}" for name in ("precision", "recall")),
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
        "precision",
        "recall",
        "CLIP score",
        "SSIM to CFG",
        "feature distance to CFG",
    )
    return (
        f"{len(results['prompts'])} {'classes' if kind_of(entry) == '-dit' else 'held-out prompts'}, "
        f"{results['sampling_steps']} steps; times are of a machine that did other work too. {made(entry)}\n\n"
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
        (f"{scale:g}", f"{gain:.1f}", "no gain" if share is None else interval(share, ".1%"))
        for scale, (gain, share) in kept(results).items()
    ]
    return table(("scale", "CFG's gain in CLIP score", "share of it that the adapter keeps"), rows)


def speed(entry: dict[str, Any]) -> str:
    bundled = all(case.startswith("bundled") for case in entry["results"])
    design, rank = entry["made"]["design"], entry["made"]["rank"]
    which = (
        "The bundled adapter" if bundled else f"{design} of rank {rank}" if rank else f"The default design, {design}"
    )
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
        f"{which}, {entry['made']['dtype']}; medians, and quartiles of the ratios within a round. "
        f"{made(entry)}\n\n" + table(columns, rows)
    )


def recording(entry: dict[str, Any]) -> str:
    results = entry["results"]
    rows = [
        (
            row["trajectories"], f"{row['passes']:g}", f"{row['seconds']:.2f}", f"{row['passes'] + 1:g}",
            f"{row['seconds_computed']:.2f}", f"{row['ratio']:.2f}",
        )
        for row in results["rows"]
    ]  # fmt: skip
    text = (
        f"Of {results['steps']} steps, {results['batch']} at a time. Either the prediction without guidance is taken "
    )
    text += f"from the guided passes, or computed once more. {made(entry)}\n\n"
    columns = ("trajectories", "passes a step", "s each", "with one more", "s each", "ratio")
    return text + table(columns, rows)


def parameters(entry: dict[str, Any]) -> str:
    rows = []
    ranks = list(dict.fromkeys(rank for by_rank in entry["results"].values() for rank in by_rank))
    for name, by_rank in entry["results"].items():
        found = [by_rank.get(rank) for rank in ranks]
        rows.append((name, *((one and f"{one['parameters'] / 1e6:.1f} M ({one['share']:.2%})") or "" for one in found)))
    columns = ("denoiser and design", *(f"rank {rank}" for rank in ranks))
    text = "Published configurations, counted on the meta device; rank 0 is the default, without deltas. "
    return f"{text}{made(entry)}\n\n" + table(columns, rows) + "\n\n" + parts(entry["results"])


def parts(results: dict[str, Any]) -> str:
    """Say what the default's parameters are for."""
    lines = []
    for name, by_rank in results.items():
        if (one := by_rank.get("0")) is not None:
            shares = {part: count / one["parameters"] for part, count in one["parts"].items() if count}
            told = ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
            lines.append(f"Of {name.split()[0]}'s default: {told}.")
    return " ".join(lines)


def launches(entry: dict[str, Any]) -> str:
    """Return the table of what an adapter adds to a step's work."""
    rows = [
        (name, one["places"], one["bare"], one["folded_adds"], one["live_adds"])
        for name, one in entry["results"].items()
    ]
    text = "Operators that are no views, on the full set of layers in tiny widths; lists of tensors count as their "
    text += f"launches on a GPU. {made(entry)}\n\n"
    return text + table(("layers of", "places", "bare step", "folded form adds", "live form adds"), rows)


NOW: Sections = {
    "teacher": ("Guidance on the U-Net", teacher),
    "retrieval": ("Whether pictures show what was asked for: the U-Net", retrieval),
    "adapter": ("A bundled adapter against CFG: the U-Net", adapter),
    "teacher-dit": ("Guidance on the class-conditional transformer", teacher),
    "retrieval-dit": ("Whether pictures show what was asked for: the class-conditional transformer", retrieval),
    "adapter-dit": ("A bundled adapter against CFG: the class-conditional transformer", adapter),
    "teacher-sd3": ("Guidance on the transformer with joint attention", teacher),
    "retrieval-sd3": ("Whether pictures show what was asked for: joint attention", retrieval),
    "adapter-sd3": ("A bundled adapter against CFG: joint attention", adapter),
    "negatives": ("Negative prompts on the U-Net", negatives),
    "negatives-sd3": ("Negative prompts with joint attention", negatives),
    "race": ("The race on the U-Net: the default design, its settings, the other designs and other methods", race),
    "race-dit": ("The race on the class-conditional transformer", race),
    "race-dit-time": ("The race on the class-conditional transformer, in equal time", race),
    "race-sd3": ("The race on the transformer with joint attention", race),
    "derived": ("The adapter of a base on models derived from it", derived),
    "launches": ("Launches of one step", launches),
    "speed-cpu-float32": ("Time of one sampling step", speed),
    "speed-cpu-float32-large": ("Time of one sampling step, large denoisers", speed),
    "memory-sdxl": ("Memory of a step of Stable Diffusion XL", memory),
    "memory-sdxl-recording": ("Memory of recording Stable Diffusion XL", recording_memory),
    "parameters": ("Extra parameters on Stable Diffusion 2.1 and XL", parameters),
}
BEFORE: Sections = {
    "compiling": ("Compiled blocks", compiling),
    "recording": ("Time of recording a trajectory", recording),
    "negative": ("Negative prompts", negative),
    "pag": ("Three passes folded into one", pag),
    "output": ("Strengths of the layers", output),
    "loss": ("What the loss counts", loss),
    "steps": ("Which steps' guidance counts", steps),
    "data": ("Recorded trajectories against noised data", data),
    "lora": ("LoRA files at one guidance scale", lora),
}
TITLE = "# Benchmarks\n\nWritten by `python benchmarks/tables.py` from the JSON in `benchmarks/results`."


def told(sections: Sections, level: str) -> list[str]:
    """Return the sections that there are results for."""
    found = ((title, section, load(name)) for name, (title, section) in sections.items())
    return [f"{level} {title}\n\n{section(entry)}" for title, section, entry in found if entry is not None]


def main() -> None:
    parts = [TITLE, *told(NOW, "##"), f"## On an earlier text-to-image model\n\n{EARLIER}", *told(BEFORE, "###")]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    fill_readme()
    print(f"written to {PAGE} and {README}")


if __name__ == "__main__":
    main()
