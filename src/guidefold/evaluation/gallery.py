"""Pictures and figures of an evaluation in a folder, and the report made of them."""

import hashlib
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from guidefold.distillation.log import LOG, read_log
from guidefold.errors import InputError
from guidefold.evaluation.report import PictureRow, check_report, write_report
from guidefold.evaluation.results import Evaluation, Interval, Row
from guidefold.evaluation.saving import save_image
from guidefold.files import (
    check_plain,
    digest,
    exists,
    named,
    read_object,
    replace_text,
    sealed,
    unsealed,
)

RESULTS = "evaluation.json"
PICTURES = "pictures"
INDEX = "pictures.json"
REPORT = "report.html"
NAMES = {"none": "no guidance", "cfg": "CFG", "adapter": "adapter"}
COLUMNS = (
    "scale", "passes", "time ratio", "recovered", "latents' distance", "Fréchet none", "CFG", "adapter", "CLIP none",
    "CFG", "adapter",
)  # fmt: skip
MARGIN = 4
TITLE = 16
# what a broken list or picture raises; of Pillow's are the last two
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, SyntaxError, Image.DecompressionBombError)


def grid(columns: Mapping[str, Sequence[Image.Image]], prompts: Sequence[str]) -> Image.Image:
    """Lay pictures out as a column per variant and a row per prompt, with titles; small pictures are enlarged."""
    first = next(iter(columns.values()))[0]
    zoom = max(1, 128 // first.width)
    width, height = first.width * zoom, first.height * zoom
    sheet = Image.new(
        "RGB", (len(columns) * (width + MARGIN), TITLE + len(prompts) * (height + MARGIN + TITLE)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for column, (name, pictures) in enumerate(columns.items()):
        draw.text((column * (width + MARGIN) + 2, 2), NAMES.get(name, name), fill="black")
        for row, picture in enumerate(pictures):
            top = TITLE + row * (height + MARGIN + TITLE)
            sheet.paste(picture.resize((width, height), Image.Resampling.BICUBIC), (column * (width + MARGIN), top))
    for row, prompt in enumerate(prompts):
        text = prompt.encode("latin-1", "replace").decode("latin-1")  # what Pillow's own font can draw
        draw.text((2, TITLE + row * (height + MARGIN + TITLE) + height), text, fill="gray")
    return sheet


def check_place(folder: Path) -> None:
    """Raise InputError where results would be written over something that is no file, or no report of ours."""
    for path in (folder / RESULTS, folder / PICTURES / INDEX):
        check_plain(path)
    check_report(folder / REPORT)


def save_results(folder: Path, results: Evaluation, pictures: Sequence[PictureRow]) -> None:
    """Write figures and pictures of an evaluation.

    The list of pictures is written last, and knows by checksums which figures and files belong to it: what a killed
    process leaves is never taken for one evaluation.
    """
    results.save(folder / RESULTS)
    rows = []
    for number, picture in enumerate(pictures):
        images = {}
        for name, image in picture.images.items():
            path = folder / PICTURES / f"{number}-{name}.png"
            save_image(image, path)
            images[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append({"prompt": picture.prompt, "guidance_scale": picture.guidance_scale, "images": images})
    values = sealed({"of": digest(results.to_dict()), "rows": rows})
    replace_text(folder / PICTURES / INDEX, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def load_pictures(folder: Path, results: Evaluation | None = None) -> list[PictureRow]:
    """Read what `save_results` wrote; nothing where there are no pictures. Raises InputError for damaged ones.

    Warns, and returns nothing, where they are of another evaluation than `results`.
    """
    path = folder / PICTURES / INDEX
    if not exists(path):
        return []
    try:
        values = unsealed(read_object(path, "pictures"), "the list of pictures")
        if results is not None and values["of"] != digest(results.to_dict()):
            warnings.warn(f"{path.parent} is of another evaluation and left out; run eval again", stacklevel=3)
            return []
        return [load_row(path.parent, number, row) for number, row in enumerate(values["rows"])]
    except BROKEN as error:
        raise InputError(
            f"cannot read the pictures of {path.parent} ({error}); delete that folder for a report without them"
        ) from error


def load_row(folder: Path, number: int, row: Mapping[str, Any]) -> PictureRow:
    """Read the pictures of one prompt."""
    if unknown := sorted(row["images"].keys() - NAMES.keys()):
        raise InputError(f"no variant {unknown[0]!r} of a picture")
    images = {name: load_image(folder / f"{number}-{name}.png", known) for name, known in row["images"].items()}
    return PictureRow(prompt=str(row["prompt"]), guidance_scale=float(row["guidance_scale"]), images=images)


def load_image(path: Path, known: str) -> Image.Image:
    """Read one PNG whose checksum is known; no other format is tried. Raises InputError where it does not fit."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != known:
        raise InputError(f"the checksum of {path.name} does not fit")
    return Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB")


def report_of(folder: Path, output: Path | None = None, *, notes: Sequence[str] = ()) -> Path:
    """Write the report of whatever a folder holds: an evaluation, pictures, the log of a training.

    Raises InputError where one of them is damaged, or the report cannot be written.
    """
    log = folder / LOG
    results = Evaluation.load(folder / RESULTS) if exists(folder / RESULTS) else None
    if results is None and not exists(log):
        raise InputError(f"{folder} holds neither {RESULTS} nor {LOG}; give the folder of a run or an evaluation")
    path, title = folder / REPORT if output is None else named(output), "Guidance in one forward pass"
    pictures = [] if results is None else load_pictures(folder, results)
    return write_report(
        path, title=title, evaluation=results, pictures=pictures, loss_log=read_log(log), notes=notes
    )  # fmt: skip


def by_variant(results: Evaluation) -> dict[float, dict[str, Row]]:
    """Return the rows of each scale by variant."""
    table: dict[float, dict[str, Row]] = {}
    for row in results.rows:
        table.setdefault(row.guidance_scale, {})[row.variant] = row
    return table


def value_of(value: Interval | None, form: str) -> str:
    return "" if value is None else format(value.value, form)


def table_rows(results: Evaluation) -> list[list[str]]:
    """Return a line of `COLUMNS` per scale."""
    lines = []
    for scale, rows in by_variant(results).items():
        ordered = [rows[name] for name in NAMES if name in rows]
        cfg, student = rows["cfg"], rows.get("adapter", rows["cfg"])
        recovered = results.recovered_by_scale.get(str(float(scale)))
        line = [
            f"{scale:g}",
            f"{cfg.passes:g} and {student.passes:g}",
            f"{cfg.seconds_per_image / student.seconds_per_image:.2f}",
        ]
        line += ["" if recovered is None else f"{recovered:.1%}"]
        line += ["" if student.latent_distance is None else f"{student.latent_distance:.2f}"]
        lines.append(
            line
            + [value_of(row.frechet, ".3f") for row in ordered]
            + [value_of(row.clip_score, ".1f") for row in ordered]
        )
    return lines
