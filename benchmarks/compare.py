"""The README's picture: no guidance, CFG and a bundled teacher's adapter, from the same noise.

`python benchmarks/compare.py [--teacher bundled-sd3]`; prompts or classes are spread evenly over all that were trained
on, in their order, and the seed is the first.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from common import ROOT
from guidefold.capture.run import titles
from guidefold.demo import bundle
from guidefold.evaluation.evaluate import spread_over
from guidefold.evaluation.media import to_image
from guidefold.evaluation.sampling import sample
from guidefold.models import load_adapter

VARIANTS = {"none": "no guidance", "cfg": "CFG: 2 passes", "adapter": "adapter: 1 pass"}
SIDE, TITLE, MARGIN = 112, 20, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=bundle.FOLDERS, default=bundle.UNET)
    parser.add_argument("--adapter", help="default: the bundled one")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "compare.png")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pipe, adapter = bundle.load_teacher(name=options.teacher), load_adapter(options.adapter or options.teacher)
    told = [one for one in bundle.prompts(options.teacher) if "skin tone" not in one]
    told = spread_over(told, options.columns)
    adapter.attach(pipe)
    rows, more = {}, bundle.CALLS[options.teacher]
    for variant, title in VARIANTS.items():
        done = sample(pipe, told, variant, options.guidance_scale, steps=20, seed=options.seed, adapter=adapter, **more)
        rows[title] = [to_image(one) for one in done.outputs]
    names = [one.rpartition(", ")[0] or one for one in titles(pipe, told)]
    strip(rows, names).save(options.output)


def strip(rows: dict[str, list[Any]], names: list[str]) -> Image.Image:
    """Lay pictures out in a row per variant, with the variants' names before them and what they show above."""
    font = ImageFont.load_default(13)
    sheet = Image.new("RGB", (MARGIN + len(names) * SIDE, TITLE + len(rows) * SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        short = name.partition(" (")[0].partition(" with ")[0]
        draw.text((MARGIN + (column + 0.5) * SIDE, 2), short, fill="gray", font=font, anchor="mt")
    for row, (told, pictures) in enumerate(rows.items()):
        draw.text((4, TITLE + (row + 0.5) * SIDE), told, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            place = (MARGIN + column * SIDE, TITLE + row * SIDE)
            sheet.paste(picture.resize((SIDE - 4, SIDE - 4), Image.Resampling.BICUBIC), place)
    return sheet


if __name__ == "__main__":
    main()
