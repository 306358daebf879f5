"""Emoji pictures with their prompts: the data that the teachers and their judge learn from."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import iconify

SIDE = 64
HELD_OUT_PAIRS, HELD_OUT_NAMES = 0.05, 0.03
TRAIN, PAIRS, NAMES = "train", "pairs", "names"
TONE = re.compile(r"-(?P<tone>(?:medium-)?(?:light|dark)|medium)(?:-skin-tone)?$|-tone(?P<number>[1-5])$")


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One picture; `wordings` are its prompts, the plainest first; `split` is "train", "pairs" or "names"."""

    name: str
    style: str
    wordings: tuple[str, ...]
    split: str
    svg: str

    @property
    def caption(self) -> str:
        return self.wordings[0]


def share(text: str) -> float:
    """Return a number in 0..1 that depends on nothing but the text: what decides who is held out."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def split_of(name: str, style: str) -> str:
    """Tell whether a name is held out altogether, or in this style only, whatever its skin tone."""
    if share(name) < HELD_OUT_NAMES:
        return NAMES
    return PAIRS if share(f"{name}, {style}") < HELD_OUT_PAIRS else TRAIN


def wordings(name: str, tone: str, style: str, other: str, keywords: tuple[str, ...]) -> tuple[str, ...]:
    """Return four prompts: plain, as a sentence, by another name, by keywords."""
    ranked = sorted(keywords, key=lambda word: share(f"{word} of {name}, {style}"))
    other = name if "skin tone" in other else other
    words = " ".join(ranked[:3]) or other
    return (
        f"{name}{tone}, {style}",
        f"{style} emoji of {name}{tone}",
        f"{other}{tone}, {style}",
        f"{words}{tone}, {style}",
    )


def load(cache: Path) -> list[Emoji]:
    """Return every picture of the eight styles in a fixed order; packages are fetched under `cache` once."""
    known, icons = iconify.words(cache), iconify.icons(cache)
    vocabulary = {w for icon in icons if icon.style != "fxemoji" for w in icon.slug.split("-")}
    found = []
    for icon in icons:
        other, tone = untoned(icon.slug)
        other = segmented(other, vocabulary) if icon.style == "fxemoji" else other.replace("-", " ")
        word = known.get(icon.code or "") or iconify.Word(name=other, tone=tone, keywords=())
        prompts = wordings(word.name, word.tone, icon.style, other, word.keywords)
        split = split_of(word.name, icon.style)
        found.append(Emoji(name=word.name, style=icon.style, wordings=prompts, split=split, svg=icon.svg))
    return settled(found)


def settled(emojis: list[Emoji]) -> list[Emoji]:
    """Return the same, with pairs whose name no other style teaches counted among the held-out names."""
    taught = {e.name for e in emojis if e.split == TRAIN}
    return [Emoji(**{**vars(e), "split": NAMES}) if e.split == PAIRS and e.name not in taught else e for e in emojis]


def untoned(slug: str) -> tuple[str, str]:
    """Return a slug without its skin tone or number, and the skin tone in words."""
    match = TONE.search(slug)
    if not match:
        return re.sub("-[0-9]$", "", slug), ""
    tones = list(iconify.TONES.values())
    tone = match["tone"].replace("-", " ") if match["tone"] else tones[int(match["number"]) - 1]
    return slug[: match.start()], f" with {tone} skin tone"


def segmented(text: str, vocabulary: Iterable[str]) -> str:
    """Return letters written together, such as "foxweary", as the fewest known words that they can be read as."""
    known = {word for word in vocabulary if len(word) > 1}
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        options = []
        for start in range(end):
            part, (cost, words) = text[start:end], best[start]
            options.append((cost + (1 if part in known else 1 + 2 * len(part)), [*words, part]))
        best.append(min(options, key=lambda option: option[0]))
    return " ".join(best[-1][1]).replace("-", " ")


def render(svg: str) -> np.ndarray:
    """Return an SVG on white as uint8 [3, 64, 64], drawn at twice the side and reduced."""
    import resvg_py

    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIDE, height=2 * SIDE, background="white")
    picture = Image.open(BytesIO(bytes(png))).convert("RGB")
    canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    canvas.paste(picture, ((2 * SIDE - picture.width) // 2, (2 * SIDE - picture.height) // 2))
    return np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.BOX)).transpose(2, 0, 1)


def pixels(emojis: list[Emoji], cache: Path) -> Tensor:
    """Return the pictures as uint8 [N, 3, 64, 64], drawn once and then read from `cache`."""
    digest = hashlib.sha256("".join(e.svg for e in emojis).encode()).hexdigest()[:12]
    path = cache / f"pixels-{digest}.safetensors"
    if not path.exists():
        drawn = torch.from_numpy(np.stack([render(e.svg) for e in emojis]))
        save_file({"pixels": drawn.contiguous()}, path)
    return load_file(path)["pixels"]


def groups(emojis: list[Emoji]) -> list[list[int]]:
    """Return indices of pictures that share name and style: skin tones of one drawing, to be seen as one."""
    found: dict[tuple[str, str], list[int]] = {}
    for index, one in enumerate(emojis):
        found.setdefault((one.name, one.style), []).append(index)
    return list(found.values())


def most_drawn(emojis: list[Emoji], count: int) -> list[str]:
    """Return the names that most styles have drawn, some of them pairs that are held out."""
    styles = Counter(name for name, _ in {(e.name, e.style) for e in emojis if e.split != NAMES})
    return sorted(sorted(styles, key=lambda name: (-styles[name], name))[:count])
