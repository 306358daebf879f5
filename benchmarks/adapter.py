"""The bundled adapter against CFG and no guidance, on prompts of held-out names.

python benchmarks/adapter.py
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
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--adapter", default="bundled")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    made = provenance(options.device)
    pipe, judge = bundle.load_teacher(options.device), bundle.load_judge()
    config = EvalConfig(images=options.images)
    results, pictures = evaluate(pipe, load_adapter(options.adapter), bundle.held_out_prompts(), judge, config)
    save(RESULTS / "adapter.json", made, results.to_dict())
    columns = {name: [row.images[name] for row in pictures] for name in ("none", "cfg", "adapter")}
    save_image(gallery.grid(columns, [row.prompt for row in pictures]), RESULTS / "adapter.png")


if __name__ == "__main__":
    main()
