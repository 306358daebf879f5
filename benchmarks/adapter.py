"""A bundled adapter against CFG and no guidance, on prompts of held-out names, or on all classes.

python benchmarks/adapter.py [--teacher bundled-dit]
"""

import argparse

from common import RESULTS, provenance, save
from guidefold.config import EvalConfig
from guidefold.demo import bundle
from guidefold.evaluation import gallery
from guidefold.evaluation.evaluate import evaluate
from guidefold.evaluation.saving import save_image
from guidefold.models import load_adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", choices=bundle.FOLDERS, default=bundle.UNET)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--adapter", help="default: the bundled one")
    parser.add_argument("--output", help="name of the results; default: adapter, and the teacher's")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    made = provenance(options.device)
    teacher = options.teacher
    name = options.output or f"adapter{teacher.removeprefix(bundle.UNET)}"
    pipe, judge = bundle.load_teacher(options.device, name=teacher), bundle.load_judge(teacher)
    adapter, config = load_adapter(options.adapter or teacher), EvalConfig(images=options.images)
    results, pictures = evaluate(
        pipe, adapter, bundle.held_out_prompts(teacher), judge, config, **bundle.CALLS[teacher]
    )
    save(RESULTS / f"{name}.json", made, results.to_dict())
    columns = {kind: [row.images[kind] for row in pictures] for kind in ("none", "cfg", "adapter")}
    save_image(gallery.grid(columns, [row.prompt for row in pictures]), RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()
