"""The page's tables of trainings at equal budget, of other guidances, and of what was learnt from them."""

from collections.abc import Iterable
from statistics import mean
from typing import Any

from pages import LATE, budget_of, interval, made, of_seeds, table

CAVEAT = (
    "Trajectories win, as the paper says, and most of all at the late steps; at scale 2, noised data is ahead on the\n"
    "student's own states."
)


def budget(results: dict[str, Any]) -> str:
    return "Equal budget (" + ", ".join(f"{name} {value}" for name, value in results["budget"].items()) + ")"


def late(row: dict[str, Any]) -> float:
    """Return guidance recovered as a mean over the later timesteps."""
    shares = [share for step, share in row["recovered_by_timestep"].items() if int(step) < LATE]
    return sum(shares) / len(shares)


def shares(rows: list[dict[str, Any]]) -> list[str]:
    """Return guidance recovered, on the student's own states, and at the later timesteps."""
    return [
        of_seeds([row["recovered"] for row in rows]),
        of_seeds([row["recovered_on_own_states"] for row in rows]),
        of_seeds([late(row) for row in rows]),
    ]


SHARES = ("recovered", "on own states", f"at timesteps below {LATE}")


def compared(entry: dict[str, Any], key: str, column: str, text: str) -> str:
    """Return the table of trainings that differ in one thing, with guidance recovered by scale."""
    return by_scale(entry, {key: column}, f"{text}{budget(entry['results'])}")


def alike(rows: list[dict[str, Any]], keys: Iterable[str]) -> dict[tuple, list[dict[str, Any]]]:
    """Group the rows that differ in their seed alone."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def by_scale(entry: dict[str, Any], columns: dict[str, str], text: str) -> str:
    """Return a table with guidance recovered by scale; `columns` heads those before it, by their key."""
    rows = entry["results"]["rows"]
    scales = list(rows[0]["recovered_by_scale"])
    lines = [
        (*names, *(of_seeds([row["recovered_by_scale"][scale] for row in group]) for scale in scales), *shares(group))
        for names, group in alike(rows, columns).items()
    ]
    heads = [f"at scale {float(scale):g}" for scale in scales]
    return f"{text}. {made(entry)}\n\n" + table((*columns.values(), *heads, *SHARES), lines)


def data(entry: dict[str, Any]) -> str:
    return compared(entry, "data", "trained on", "") + f"\n\n{CAVEAT}"


def output(entry: dict[str, Any]) -> str:
    text = "Adapted, it has strength s - 1 and those before it tanh(s - 1); else they have s - 1. "
    return compared(entry, "output", "the layer that makes the prediction", text)


def loss(entry: dict[str, Any]) -> str:
    text = "Every state's share of guidance counted alike, or all squared errors summed up. "
    return compared(entry, "loss", "loss", text)


def steps(entry: dict[str, Any]) -> str:
    """Return the table of images whose noisy and late steps are predicted by different models."""
    results = entry["results"]
    scales: dict[float, dict[tuple[str, str], float]] = {}
    for row in results["rows"]:
        scales.setdefault(row["guidance_scale"], {})[row["noisy"], row["late"]] = row["clip_score"]
    text = (
        f"CLIP score of {results['images']} images whose predictions at timesteps of {results['late']} and more come "
    )
    text += f"from one model, and those below from another. {made(entry)}\n\n"
    columns = (f"from {results['late']}", "below", *(f"scale {scale:g}" for scale in scales))
    mixes = next(iter(scales.values()))
    return text + table(columns, [(*mix, *(f"{one[mix]:.1f}" for one in scales.values())) for mix in mixes])


def race(entry: dict[str, Any]) -> str:
    """Return the table of the default design's settings, the other designs and the peers, best first."""
    groups = alike(entry["results"]["rows"], ("variant", "parameters"))
    best = sorted(groups.items(), key=lambda one: -mean(row["recovered"] for row in one[1]))
    lines = [
        (
            name,
            f"{count:,}",
            f"{len(group)}",
            f"{mean(row['steps'] for row in group):.0f}",
            f"{mean(row['seconds_per_step'] for row in group):.2f}",
            *shares(group),
        )
        for (name, count), group in best
    ]
    text = f"{budget(entry['results'])}, {entry['results']['judged_prompts']} held-out prompts, own states at "
    text += f"scale 4; one seed tells differences below two points apart from nothing. {made(entry)}\n\n"
    text += "Adapters have learning rate 4e-3, the others those of `benchmarks/peers.py` and `paper.py`, tried over 12 "
    text += "steps.\n\n"
    if entry["results"].get("interrupted"):
        text += "The command was interrupted: variants and seeds that it names and the table lacks were not run.\n\n"
    if also := entry["results"].get("also"):
        text += f"The second seed is of `{also}`.\n\n"
    return text + table(("variant", "parameters", "seeds", "steps", "seconds per step", *SHARES), lines)


def derived(entry: dict[str, Any]) -> str:
    """Return the table of the base's adapter on models derived from the base, and their pictures."""
    results, lines = entry["results"], []
    for model, adapters in results["models"].items():
        style = results["styles"].get(model)
        for which, rows in adapters.items():
            for row in rows:
                three = [row[name] for name in ("none", "cfg", "adapter")]
                gain = three[1]["clip_score"] - three[0]["clip_score"]
                kept = (three[2]["clip_score"] - three[0]["clip_score"]) / gain if gain > 1 else None
                lines.append(
                    (
                        f"{model} ({style})" if style else model, which, f"{row['guidance_scale']:g}",
                        f"{row['recovered']:.0%}", f"{row['recovered_on_own_states']:.0%}",
                        *(interval(one["frechet"], ".1f") for one in three), f"{gain:.1f}",
                        "no gain" if kept is None else f"{kept:.0%}",
                    )
                )  # fmt: skip
    columns = (
        "model", "adapter", "scale", "recovered", "on own states", "Fréchet distance: none", "CFG", "adapter",
        "CFG's gain in CLIP score", "kept",
    )  # fmt: skip
    budget = results["budget"]
    text = f"The bundled text-to-image model, derived with {budget['steps']} steps of 64; the base's adapter as it is, "
    text += f"or trained further with {budget['adapter_steps']} steps of 32 on {budget['trajectories']} trajectories "
    text += f"of the derived model. {made(entry)}\n\n" + table(columns, lines)
    pictures = (
        f"![{model}: none, CFG, the base's adapter](derived-{model.lower()}.png)" for model in results["models"]
    )
    return "\n\n".join([text, *pictures])


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


def negatives(entry: dict[str, Any]) -> str:
    """Return the table of adapters that see a negative prompt's tokens, or a pooled code alone."""
    results = entry["results"]
    names = ("with_negative_prompt", "with_negative_prompt_but_not_told", "without_negative_prompt")
    rows = []
    for row in results["rows"]:
        seen = "tokens" if row["tokens"] else "a pooled code"
        rows += [(seen, f"{one['guidance_scale']:g}", *(f"{one[name]:.1%}" for name in names)) for one in row["scales"]]
    columns = (
        "of the negative prompt it sees",
        "scale",
        "told",
        "the same states, told there is none",
        "no negative prompt",
    )
    text = "Guidance recovered on held-out prompts and negative prompts that were not trained on; the teacher has the "
    text += "negative prompt in the first two shares. Tokens are read by the base's cross-attentions or, with joint "
    text += "attention, by small ones of the adapter that the commit has, which brought nothing and were taken out. "
    text += f"{budget_of(results)} {made(entry)}\n\n" + table(columns, rows)
    lines = []
    for row in results["rows"]:
        one, seen = row["images"], "tokens" if row["tokens"] else "a pooled code"
        far = one["teachers_apart"]
        shares = [one[f"student_to_{name}"] / far for name in ("negative_prompted_teacher", "plain_teacher")]
        lines.append((seen, *(f"{share:.2f}" for share in shares), f"{one['nearer_student']:.0%}"))
    columns = (
        "of the negative prompt it sees",
        "to the teacher with it",
        "to the teacher without",
        "nearer to the first",
    )
    text += (
        "\n\nDistance of final latents at scale 4, mean squared, as a multiple of the distance between the teachers:"
    )
    return f"{text}\n\n" + table(columns, lines)


def pag(entry: dict[str, Any]) -> str:
    """Return the table of three passes folded into one."""
    results = entry["results"]
    rows = [(f"{row['guidance_scale']:g}", f"{row['recovered']:.1%}") for row in results["rows"]]
    passes = f"{results['teacher_passes_per_step']:g} passes a step become {results['student_passes_per_step']:g}"
    text = f"CFG with perturbed attention guidance at scale {results['pag_scale']:g}: {passes}. {budget_of(results)} "
    return text + f"{made(entry)}\n\n" + table(("guidance scale", "recovered"), rows)


def lora(entry: dict[str, Any]) -> str:
    """Return the table of what LoRA files keep at one guidance scale."""
    results = entry["results"]
    rows = [
        (
            row["variant"],
            f"{row['parameters']:,}",
            f"{row['whole']:.1%}",
            "" if row["file"] is None else f"{row['file']:.1%}",
        )
        for row in results["rows"]
    ]
    text = f"{budget(results)}, {results['judged_prompts']} held-out prompts. {made(entry)}\n\n"
    return text + table(("variant", "parameters", "recovered by the adapter", "by its LoRA file"), rows)


def retrieval(entry: dict[str, Any]) -> str:
    """Return the table of how often the judge picks the name or class that a picture was to show."""
    results = entry["results"]
    rows = [
        (
            row["variant"], f"{row['guidance_scale']:g}", interval(row["top1"], ".1%"), interval(row["frechet"], ".1f"),
            interval(row["diversity"]),
        )
        for row in results["rows"]
    ]  # fmt: skip
    rows.append(("real pictures", "", interval(results["real"], ".1%"), "", ""))
    text = f"{results['each']} of each of {results['prompts']} prompts or classes, {results['steps']} steps; right is "
    text += (
        f"the nearest of {results['among']} names in the judge's features. Most real pictures of classes are of the "
    )
    text += f"judge's training. Apart is the mean feature distance of two pictures of one prompt. {made(entry)}\n\n"
    return text + table(("variant", "guidance scale", "right", "Fréchet distance", "apart"), rows)
