"""Pictures and figures of an evaluation in a folder, and the report made of them."""

import json
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from guidefold.errors import InputError
from guidefold.evaluation.media import Kind, frames_a_second, sampling_rate, still, to_image
from guidefold.evaluation.report import PictureRow, write_report
from guidefold.evaluation.results import Evaluation, Interval, Row, replace_text
from guidefold.files import writing

RESULTS = "evaluation.json"
PICTURES = "pictures"
NAMES = {"none": "no guidance", "cfg": "CFG", "adapter": "adapter"}
COLUMNS = (
    "scale", "passes", "time ratio", "recovered", "latents' distance", "Fréchet none", "CFG", "adapter", "CLIP none",
    "CFG", "adapter",
)  # fmt: skip
MARGIN = 4
TITLE = 16


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all, in the draft that is given. Raises InputError where the disk refuses it."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".partial")
        yield draft
        draft.replace(path)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all. Raises InputError where the disk refuses it."""
    with drafted(path) as draft:
        image.save(draft, format="PNG")


def save_film(film: Tensor, path: Path, frames_a_second: float) -> None:
    """Write a film [F, 3, H, W] as a GIF that goes round. Raises InputError where the disk refuses it."""
    first, *rest = (to_image(frame) for frame in film)
    pace = dict(duration=max(20, round(1000 / frames_a_second)), loop=0)  # browsers slow down what is faster
    with drafted(path) as draft:
        first.save(draft, format="GIF", save_all=True, append_images=rest, **pace)


def save_sound(sound: Tensor, path: Path, rate: int) -> None:
    """Write a sound [C, T] as a WAV of 16 bits. Raises InputError where the disk refuses it."""
    numbers = (sound.clamp(-1, 1) * 32767).round().short().T.contiguous().numpy()
    with drafted(path) as draft, wave.open(str(draft), "wb") as file:
        file.setnchannels(len(sound))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numbers.astype("<i2").tobytes())


def save_made(pipe: Any, kind: Kind, one: Tensor, stem: Path, arguments: Mapping[str, Any]) -> Image.Image:
    """Write a picture, a film's strip and GIF, or a sound's waves and WAV; return what is to be looked at."""
    shown = still(kind, one)
    save_image(shown, stem.with_name(f"{stem.name}.png"))
    if kind == "frames":
        save_film(one, stem.with_name(f"{stem.name}.gif"), frames_a_second(pipe, arguments))
    elif kind == "audios":
        save_sound(one, stem.with_name(f"{stem.name}.wav"), sampling_rate(pipe))
    return shown


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


def save_results(folder: Path, results: Evaluation, pictures: Sequence[PictureRow]) -> None:
    """Write figures and pictures of an evaluation."""
    results.save(folder / RESULTS)
    rows = []
    for number, picture in enumerate(pictures):
        for name, image in picture.images.items():
            save_image(image, folder / PICTURES / f"{number}-{name}.png")
        rows.append(
            {"prompt": picture.prompt, "guidance_scale": picture.guidance_scale, "images": list(picture.images)}
        )
    replace_text(folder / PICTURES / "pictures.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


def load_pictures(folder: Path) -> list[PictureRow]:
    """Read what `save_results` wrote; nothing where there are no pictures. Raises InputError for damaged ones."""
    path = folder / PICTURES / "pictures.json"
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [load_row(path.parent, number, row) for number, row in enumerate(rows)]
    except (OSError, ValueError, KeyError, TypeError, SyntaxError) as error:  # Pillow's for a broken PNG is the last
        raise InputError(
            f"cannot read the pictures of {path.parent} ({error}); delete that folder for a report without them"
        ) from error


def load_row(folder: Path, number: int, row: Mapping[str, Any]) -> PictureRow:
    """Read the pictures of one prompt."""
    images = {name: Image.open(folder / f"{number}-{name}.png").convert("RGB") for name in row["images"]}
    return PictureRow(prompt=str(row["prompt"]), guidance_scale=float(row["guidance_scale"]), images=images)


def load_log(path: Path) -> list[dict[str, Any]]:
    """Read the log of a training, but for half a line that a killed run may leave; nothing where there is none.

    Raises InputError that names the first damaged line.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; delete it for a report without it") from error
    return [log_row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.endswith("}")]


def log_row(line: str, place: str) -> dict[str, Any]:
    """Return what a line of the log says. Raises InputError that names the place."""
    try:
        row = json.loads(line)
        numbers = [row["step"], row.get("loss"), row.get("validation")]
        good = all(number is None or isinstance(number, (int, float)) for number in numbers)
    except (ValueError, KeyError) as error:
        raise InputError(f"{place} is damaged ({error}); delete that line") from error
    if not good:
        raise InputError(f"{place} is damaged (a step or loss that is no number); delete that line")
    return row


def report_of(folder: Path, output: Path | None = None, *, notes: Sequence[str] = ()) -> Path:
    """Write the report of whatever a folder holds: an evaluation, pictures, the log of a training.

    Raises InputError where one of them is damaged, or the report cannot be written.
    """
    log = folder / "log.jsonl"
    results = Evaluation.load(folder / RESULTS) if (folder / RESULTS).exists() else None
    if results is None and not log.exists():
        raise InputError(f"{folder} holds neither {RESULTS} nor log.jsonl; give the folder of a run or an evaluation")
    path, title = output or folder / "report.html", "Guidance in one forward pass"
    return write_report(
        path, title=title, evaluation=results, pictures=load_pictures(folder), loss_log=load_log(log), notes=notes
    )


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
