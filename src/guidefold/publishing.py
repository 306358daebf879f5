"""An adapter's page on the Hub: its files, a card with pictures and figures, and the report of its evaluation."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from PIL.Image import Image

from guidefold import ui
from guidefold.errors import InputError
from guidefold.evaluation import gallery
from guidefold.evaluation.report import PictureRow
from guidefold.evaluation.results import Evaluation
from guidefold.files import exists
from guidefold.keeping import Adapter, hub
from guidefold.keeping.card import Shown, base_line, marked, model_card
from guidefold.keeping.group import AdapterGroup

COMPARED = "compare.jpg"
WIDEST = 1200  # pixels of the picture on the page
LEGEND = (
    "Time ratio: CFG's time by the adapter's. Recovered: the part of guidance that the adapter predicts; 100% is CFG. "
    f"`{gallery.REPORT}` among the files tells the rest; download it to see it."
)


def push(*, adapter: str, repository: str, report: Path | None, private: bool, licence: str | None) -> None:
    """Upload an adapter with its page to the Hub."""
    place = push_to_hub(hub.load(adapter), repository, private=private, report=report, licence=licence)
    ui.say(f"uploaded: {place}")


def push_to_hub(
    adapter: Adapter | AdapterGroup,
    repository: str,
    *,
    private: bool = False,
    report: str | Path | None = None,
    licence: str | None = None,
) -> str:
    """Upload an adapter or a group to a Hub repository such as `me/sd-folded`, and return the address of the commit.

    `report` is the folder of an evaluation, whose pictures, figures and report the page then shows; `licence` is the
    base model's, as the Hub abbreviates it, asked of the Hub where it is not given. Raises InputError for a report of
    something else, and where the Hub refuses the upload.
    """
    if isinstance(adapter, AdapterGroup):
        if report is not None or licence is not None:
            raise InputError("the page of a group shows no report; push it without report and licence")
        return hub.push_to_hub(adapter, repository, private=private)
    with TemporaryDirectory() as folder:
        hub.save_pretrained(adapter, folder, name=repository)
        write_page(adapter, Path(folder), repository, report=report, licence=licence)
        return hub.upload(folder, repository, private=private)


def write_page(
    adapter: Adapter, folder: Path, name: str, *, report: str | Path | None = None, licence: str | None = None
) -> None:
    """Write the card, and what it shows, beside an adapter's files. Raises InputError for another report."""
    known: dict[str, Any] = {"licence": licence_of(adapter.trained.get("base"), licence)}
    if report is not None:
        known |= shown_of(Path(report), folder)
    (folder / hub.README).write_text(model_card(adapter, name, Shown(**known)), encoding="utf-8")


def licence_of(base: Any, given: str | None) -> dict[str, str]:
    """Return the base model's licence as front matter: as given, as its own card on the Hub says, or nothing."""
    if given is not None:
        return {"license": given}
    if not base_line(base):
        return {}
    try:
        card = HfApi().model_info(base).card_data
    except (HFValidationError, HfHubHTTPError, OSError):
        return {}
    values = {} if card is None else card.to_dict()
    names = ("license", "license_name", "license_link")
    return {name: values[name] for name in names if isinstance(values.get(name), str)}


def shown_of(report: Path, folder: Path) -> dict[str, Any]:
    """Copy an evaluation's report into a folder, with one picture of its pictures; return what the card shows."""
    if not exists(report / gallery.RESULTS):
        raise InputError(f"{report} holds no {gallery.RESULTS}; give the folder that eval wrote")
    results = Evaluation.load(report / gallery.RESULTS)
    rows = gallery.load_pictures(report, results)
    gallery.report_of(report, folder / gallery.REPORT)
    shutil.copyfile(report / gallery.RESULTS, folder / gallery.RESULTS)
    found: dict[str, Any] = {"figures": figures_of(results), "kind": results.meta.get("kind", "images")}
    if rows:
        compared(rows).save(folder / COMPARED, quality=90, subsampling=0)
        text = f"No guidance, CFG and the adapter from the same noise, at guidance scale {rows[0].guidance_scale:g}"
        found["pictures"] = f"![{text}]({COMPARED})\n\n*{text}.*"
    prompts = [row.prompt for row in rows] or results.prompts
    return found | ({"prompt": min(prompts, key=len)} if prompts else {})  # a short one fits into a line of code


def compared(rows: list[PictureRow]) -> Image:
    """Return the pictures side by side, a row for each prompt."""
    names = [name for name in gallery.NAMES if all(name in row.images for row in rows)]
    sheet = gallery.grid({name: [row.images[name] for row in rows] for name in names}, [row.prompt for row in rows])
    sheet.thumbnail((WIDEST, 4 * WIDEST))
    return sheet


def figures_of(results: Evaluation) -> str:
    """Return the figures of an evaluation as a table, narrow enough for a page, without what was not measured."""
    lines = [*map(narrow, [list(gallery.COLUMNS), *gallery.table_rows(results)])]
    kept = [place for place in range(len(lines[0])) if any(line[place] for line in lines[1:])]
    head, *rows = [[marked(line[place]) for place in kept] for line in lines]
    judge = marked(results.meta.get("judge", "unknown"))
    told = f"Judged on {len(results.prompts)} prompts, {results.sampling_steps} steps, on {marked(results.device)}"
    text = "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(kept), *rows])
    return f"{told}; features: {judge}.\n\n{text}\n\n{LEGEND}"


def narrow(line: list[str]) -> list[str]:
    """Return a line of `gallery.COLUMNS` with the three variants' values of a figure in one cell, or none."""
    found = [", ".join(line[place : place + 3]) if line[place] else "" for place in (5, 8)]
    return [line[0], *line[2:5], *found]
