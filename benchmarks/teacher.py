"""Proof that guidance matters on the bundled teacher: metrics and pictures over guidance scales.

python benchmarks/teacher.py
"""

import argparse

from PIL import Image

from common import RESULTS, ROOT, provenance, save
from guidefold.config import EvalConfig
from guidefold.demo import bundle
from guidefold.evaluation import gallery
from guidefold.evaluation.evaluate import evaluate, spread_over
from guidefold.evaluation.media import to_image
from guidefold.evaluation.sampling import sample

SCALES = (1.0, 2.0, 4.0, 6.0, 8.0, 12.0)
SHOWN = (
    "red apple, noto",
    "cat face, twemoji",
    "guitar, noto",
    "red heart, twemoji",
    "airplane, noto",
    "snowman, twemoji",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    made = provenance()
    pipe, judge = bundle.load_teacher(options.device), bundle.load_judge()
    config = EvalConfig(scales=SCALES[1:], images=options.images)
    results, _ = evaluate(pipe, None, bundle.held_out_prompts(), judge, config)
    rows = [results.of("none")[0], *results.of("cfg")]
    columns = ("guidance_scale", "frechet", "clip_score", "kernel_distance", "precision", "recall")
    table = [
        dict(zip(columns, (scale, *(getattr(row, name) for name in columns[1:])), strict=True))
        for scale, row in zip(SCALES, rows, strict=True)
    ]
    for line in table:
        line |= {name: vars(line[name]) for name in ("frechet", "clip_score")}
    save(
        RESULTS / "teacher.json",
        made,
        {"images": options.images, "steps": config.sampling_steps, "judge": judge.name, "rows": table},
    )
    picture(pipe).save(ROOT / "docs" / "teacher.png")


def picture(pipe) -> Image.Image:
    """Return a grid: training prompts and held-out prompts down, guidance scales across."""
    known = [prompt for prompt in SHOWN if prompt in set(bundle.prompts())]
    prompts = [*known, *spread_over(bundle.held_out_prompts(), 6)]
    columns = {}
    for scale in SCALES:
        done = sample(pipe, prompts, "none" if scale == 1 else "cfg", scale, steps=20, seed=7, adapter=None)
        columns[f"scale {scale:g}"] = [to_image(one) for one in done.outputs]
    return gallery.grid(columns, prompts)


if __name__ == "__main__":
    main()
