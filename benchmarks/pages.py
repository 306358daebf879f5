"""What the page and the README share: results read from JSON, and how they are written as markdown."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LATE = 800  # timesteps below it are the late ones


def load(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def interval(value: dict[str, float] | None, form: str = ".3f") -> str:
    if value is None:
        return ""
    return f"{value['value']:{form}} ({value['low']:{form}} to {value['high']:{form}})"


def of_seeds(shares: Sequence[float]) -> str:
    """Return the mean of shares, and the range where there are several."""
    mean = f"{sum(shares) / len(shares):.1%}"
    return mean if len(shares) == 1 else f"{mean} ({min(shares):.1%} to {max(shares):.1%})"


def made(entry: dict[str, Any]) -> str:
    how = entry["made"]
    code = f"commit {how['commit'][:9]}{' with uncommitted changes' if how['dirty'] else ''}"
    command = re.sub(r" --work \S+", "", how["command"])  # only where files are kept
    return f"`{command}`, {code}, {how['cpu']}, {how['threads']} threads, torch {how['torch']}."


Kept = tuple[float, dict[str, float] | None]


def kept(results: dict[str, Any]) -> dict[float, Kept]:
    """Return, for every scale, CFG's gain in CLIP score and the share of it that the adapter keeps, as an interval.

    The interval is that of the difference to CFG, image by image; the gain is taken as it was measured.
    """
    scales: dict[float, dict[str, dict[str, Any]]] = {}
    for row in results["rows"]:
        scales.setdefault(row["guidance_scale"], {})[row["variant"]] = row
    found = {}
    for scale, one in scales.items():
        gain = one["cfg"]["clip_score"]["value"] - one["none"]["clip_score"]["value"]
        difference = one["adapter"]["clip_difference"]
        # where guidance itself hardly raises the score, there is nothing to keep
        share = {name: 1 + value / gain for name, value in difference.items()} if gain > 1 else None
        found[scale] = gain, share
    return found


def interval_of(quartiles: dict[str, float]) -> str:
    return f"{quartiles['median']:.3f} ({quartiles['low']:.3f} to {quartiles['high']:.3f})"


def budget_of(results: dict[str, Any]) -> str:
    start = f", starting from the {results['init']} adapter" if results.get("init") else ""
    return f"Trained for {results['steps']} steps of 32 on {results['trajectories']} trajectories{start}."
