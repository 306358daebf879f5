"""The support page: what was seen of every pipeline class."""

import json
from pathlib import Path

import diffusers
import torch

from support.check import Row

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "support" / "results.json"
PAGE = ROOT / "docs" / "support.md"

TEXT = """# Which pipelines guidefold folds

Made by `python -m support` with diffusers {diffusers} and torch {torch}: every pipeline class that diffusers exports is
built from tiny random components (`support/families/`) and tried. There is no code for any pipeline in guidefold; what
it does is found by running the pipeline.

**{works} pipelines work.** For each of them:

1. an argument (or the guider) turns guidance off, found by measuring the denoiser's work;
2. what the scheduler receives was traced back to the denoiser's output, along the guided trajectory;
3. the pipeline without guidance, given a perfect student, returns what the guided pipeline returns;
4. an adapter finds its targets, a zero-initialised one changes nothing, bit for bit, and a random one does change the
   output, at exactly the rows and calls of the pipeline without guidance; detaching it gives the guided pipeline back;
5. the denoiser's calls, made again from what a store keeps of them, are answered as they were: step by step, and the
   states of all steps in one batch, as training mixes them;
6. the adapter's two forms, parameters written once a step and hooks on layers, come to the same.

*Off* is what guidefold sets to turn guidance off; these arguments keep their meaning for the user. *Further* scales can
be given to the adapter too (`dials`). *Receives* says what a scheduler gets of the denoiser's output. *Rows* and
*calls* are those of all networks that take a timestep, ControlNets included, in a run of a few steps with guidance and
with an adapter. *Recording* takes so many passes a step: those with guidance, and one more where the prediction without
guidance is not among them ({known} of {works} pipelines need none). *Errors*, relative to the largest value: target
(2), student's inputs against the guided run's branch, result (3), answers to recorded calls (5), and forms (6). Inputs
differ where a pipeline draws its own noise for every branch, and cannot be compared (n/a) where it keeps caches, or
images in another dimension than the first.

{tables}
## Not folded

| pipeline | why |
|---|---|
{others}
"""

HEADER = """## {package}

| pipeline | denoisers | off | further | receives | rows | calls | targets | recording | errors |
|---|---|---|---|---|---|---|---|---|---|
"""


def write(rows: list[Row]) -> None:
    """Write results and page."""
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__.partition("+")[0]}
    kept = {"command": "python -m support", **versions, "rows": [row.to_dict() for row in rows]}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(rows, **versions), encoding="utf-8")
    print(f"{sum(not row.why for row in rows)} of {len(rows)} pipelines work: {PAGE}")


def page(rows: list[Row], diffusers: str, torch: str) -> str:
    """Return the page of rows made with these versions."""
    working = [row for row in rows if not row.why]
    packages = sorted({row.package for row in working})
    tables = "\n".join(table(one, [row for row in working if row.package == one]) for one in packages)
    others = "\n".join(f"| {row.pipeline} | {row.why.replace('|', '/')} |" for row in rows if row.why)
    known = sum(row.passes * row.rows_folded == row.rows_guided for row in working)
    return TEXT.format(works=len(working), known=known, tables=tables, others=others, diffusers=diffusers, torch=torch)


def table(package: str, rows: list[Row]) -> str:
    return HEADER.format(package=package) + "".join(line(row) for row in rows)


def line(row: Row) -> str:
    values = (row.target_error, row.input_error, row.result_error, row.replay_error, row.form_error)
    errors = " ".join("n/a" if value is None else f"{value:.0e}" if value else "0" for value in values)
    cells = (
        row.pipeline, row.denoisers, row.off, row.further, row.receives, f"{row.rows_guided} → {row.rows_folded}",
        f"{row.calls_guided} → {row.calls_folded}", str(row.targets), f"{row.passes:g}", errors,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"
