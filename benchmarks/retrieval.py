"""Whether pictures show what they were asked for: how often the judge picks the right class among 64.

`python benchmarks/retrieval.py`: one picture of every class of the class-conditional teacher without guidance, with CFG
and with the bundled adapter, from the same noise; then the real pictures, which are the judge's own ceiling.
"""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from common import RESULTS, provenance, save
from guidefold.demo import bundle
from guidefold.evaluation.judge import in_batches
from guidefold.evaluation.metrics import frechet_distance
from guidefold.evaluation.sampling import sample
from guidefold.models import load_adapter

AMONG, ROUNDS = 64, 200
BATCH = 50


@torch.no_grad()
def top1(images: Tensor, texts: Tensor, labels: Tensor) -> float:
    """Return how often the nearest of 64 classes, the right one among them, is the right one."""
    similarity = nn.functional.normalize(images, dim=1) @ nn.functional.normalize(texts, dim=1).T
    own = similarity.gather(1, labels[:, None])
    random = torch.Generator().manual_seed(0)
    right = 0.0
    for _ in range(ROUNDS):
        # others drawn anew for every picture; one that happens to be the right class is passed over
        others = torch.randint(0, texts.shape[0] - 1, (len(labels), AMONG - 1), generator=random)
        others += others >= labels[:, None]
        right += (similarity.gather(1, others).amax(1, keepdim=True) < own).float().mean().item()
    return right / ROUNDS


def pictures(pipe: Any, labels: list[str], variant: str, scale: float, adapter: Any, steps: int) -> Tensor:
    """Return pictures [N, 3, H, W], each from noise of its own."""
    parts = [labels[start : start + BATCH] for start in range(0, len(labels), BATCH)]
    made = [
        sample(pipe, part, variant, scale, steps=steps, seed=10_000 * number, adapter=adapter)
        for number, part in enumerate(parts)
    ]
    return torch.cat([one.outputs for one in made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default=bundle.DIT)
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0, 4.0, 6.0, 8.0])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    made, features = provenance(), bundle.BundledFeatures(bundle.DIT)
    assert features.classes is not None and features.labels is not None
    pipe, adapter = bundle.load_teacher(name=bundle.DIT), load_adapter(options.adapter)
    adapter.attach(pipe)
    labels = bundle.prompts(bundle.DIT)
    numbers = torch.tensor([int(label) for label in labels])
    rows = []
    for scale in (1.0, *options.scales):
        for variant in ("none",) if scale == 1 else ("cfg", "adapter"):
            found = in_batches(features.images, pictures(pipe, labels, variant, scale, adapter, options.steps))
            row = {"variant": variant, "guidance_scale": scale, "top1": top1(found, features.classes, numbers)}
            rows.append(row | {"frechet": float(frechet_distance(found, features.reference))})
            print(rows[-1], flush=True)
    real = top1(features.reference, features.classes, features.labels.long())
    results = {"classes": len(labels), "among": AMONG, "steps": options.steps, "real": real, "rows": rows}
    save(RESULTS / "retrieval-dit.json", made, results)


if __name__ == "__main__":
    main()
