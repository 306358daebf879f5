"""Proof that guidance matters on a bundled teacher: metrics and pictures over guidance scales.

python benchmarks/teacher.py [--teacher bundled-dit]
"""

import argparse
from typing import Any

from PIL import Image

from common import RESULTS, ROOT, provenance, save
from guidefold.capture.run import titles
from guidefold.config import EvalConfig
from guidefold.demo import bundle
from guidefold.evaluation import gallery
from guidefold.evaluation.evaluate import evaluate, spread_over
from guidefold.evaluation.media import to_image
from guidefold.evaluation.sampling import sample

SCALES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=bundle.FOLDERS, default=bundle.UNET)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    made, suffix = provenance(), options.teacher.removeprefix(bundle.UNET)
    pipe, judge = bundle.load_teacher(options.device, name=options.teacher), bundle.load_judge(options.teacher)
    config = EvalConfig(scales=SCALES[1:], images=options.images)
    results, _ = evaluate(
        pipe, None, bundle.held_out_prompts(options.teacher), judge, config, **bundle.CALLS[options.teacher]
    )
    rows = [results.of("none")[0], *results.of("cfg")]
    columns = ("guidance_scale", "frechet", "clip_score", "kernel_distance", "precision", "recall")
    table = [
        dict(zip(columns, (scale, *(getattr(row, name) for name in columns[1:])), strict=True))
        for scale, row in zip(SCALES, rows, strict=True)
    ]
    for line in table:
        line |= {name: vars(line[name]) for name in ("frechet", "clip_score")}
    save(
        RESULTS / f"teacher{suffix}.json",
        made,
        {"images": options.images, "steps": config.sampling_steps, "judge": judge.name, "rows": table},
    )
    picture(pipe, options.teacher).save(ROOT / "docs" / f"teacher{suffix}.png")


def picture(pipe: Any, teacher: str) -> Image.Image:
    """Return a grid: training prompts and held-out ones, or classes, down, guidance scales across."""
    told = dict(shown(pipe) if teacher == bundle.DIT else captions(teacher))
    columns = {}
    for scale in SCALES:
        done = sample(
            pipe,
            list(told),
            "none" if scale == 1 else "cfg",
            scale,
            steps=20,
            seed=7,
            adapter=None,
            **bundle.CALLS[teacher],
        )
        columns[f"scale {scale:g}"] = [to_image(one) for one in done.outputs]
    return gallery.grid(columns, list(told.values()))


def captions(teacher: str) -> list[tuple[str, str]]:
    """Return prompts, and what to write beside them."""
    known, new = (spread_over(found(teacher), 6) for found in (bundle.prompts, bundle.held_out_prompts))
    return [(prompt, prompt) for prompt in [*known, *new]]


def shown(pipe: Any, count: int = 12) -> list[tuple[str, str]]:
    """Return classes, spread over all, and their names."""
    labels = spread_over(bundle.prompts(bundle.DIT), count)
    return list(zip(labels, titles(pipe, labels), strict=True))


if __name__ == "__main__":
    main()
