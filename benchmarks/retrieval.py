"""Whether pictures show what they were asked for: how often the judge picks the right name among 64.

`python benchmarks/retrieval.py [--teacher bundled-dit]`: pictures of held-out prompts, or of every class, without
guidance, with CFG and with the bundled adapter, from the same noise; then the real pictures, the judge's own ceiling.
How far apart two pictures of one prompt are says how diverse they are.
"""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common import RESULTS, provenance, save
from guidefold.demo import bundle
from guidefold.evaluation.judge import in_batches
from guidefold.evaluation.metrics import bootstrap, feature_distance, frechet_distance
from guidefold.evaluation.sampling import sample
from guidefold.models import load_adapter
from guidefold.trajectories.prompts import read_conditions

AMONG, ROUNDS = 64, 200
RESAMPLES = 100
BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Question:
    """What pictures are asked for: `told` the pipeline, with the names and the text features [N, D] of it."""

    told: list[str]
    names: list[str]
    texts: Tensor


def question(teacher: str, features: bundle.BundledFeatures) -> Question:
    """Return every class once, or every held-out prompt, whose names stand before their style."""
    told = bundle.prompts(teacher) if features.classes is not None else bundle.held_out_prompts(teacher)
    names = told if features.classes is not None else [caption.rpartition(", ")[0] for caption in told]
    return Question(told=told, names=names, texts=features.texts(told))


@torch.no_grad()
def right(images: Tensor, own: Tensor, asked: Question) -> Tensor:
    """Return how often [N] the nearest of 64 texts of different names is a picture's own [N], of features [N, D]."""
    similarity = nn.functional.normalize(images, dim=1) @ nn.functional.normalize(asked.texts, dim=1).T
    number = {name: index for index, name in enumerate(dict.fromkeys(asked.names))}
    names = torch.tensor([number[name] for name in asked.names])
    random, found = torch.Generator().manual_seed(0), torch.zeros(len(images))
    for _ in range(ROUNDS):
        # others drawn anew for every picture, one of each name and none of the own
        order = torch.rand(len(images), len(names), generator=random)
        order[names[own][:, None] == names[None]] = -1
        for name in number.values() if len(number) < len(names) else ():
            column = names == name
            order[:, column] = torch.where(order[:, column] == order[:, column].amax(1, True), order[:, column], -1)
        others = order.topk(AMONG - 1, dim=1).indices
        best = similarity.gather(1, others).amax(1)
        found += best < similarity.gather(1, own[:, None])[:, 0]
    return found / ROUNDS


def top1(images: Tensor, own: Tensor, asked: Question) -> dict[str, float]:
    """Return the share of pictures that the judge gets right, with its interval."""
    return vars(bootstrap(torch.mean, right(images, own, asked)))


def diversity(images: Tensor, each: int) -> dict[str, float] | None:
    """Return how far apart [0..2] the features [each * N, D] of pictures of one prompt are, with an interval."""
    if each < 2:
        return None
    first, second, *_ = images.chunk(each)
    return vars(bootstrap(torch.mean, feature_distance(first, second)))


def pictures(pipe: Any, teacher: str, told: list[str], variant: str, scale: float, adapter: Any, steps: int) -> Tensor:
    """Return pictures [N, 3, H, W], each from noise of its own."""
    more = bundle.CALLS[teacher]
    parts = [told[start : start + BATCH] for start in range(0, len(told), BATCH)]
    made = [
        sample(pipe, part, variant, scale, steps=steps, seed=10_000 * number, adapter=adapter, **more)
        for number, part in enumerate(parts)
    ]
    return torch.cat([one.outputs for one in made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", choices=bundle.FOLDERS, default=bundle.UNET)
    parser.add_argument("--adapter", help="default: the bundled one")
    parser.add_argument("--scales", type=float, nargs="+", default=[2.0, 4.0, 6.0, 8.0])
    parser.add_argument("--each", type=int, default=2, help="pictures of each held-out prompt, or class")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    made, teacher = provenance(), options.teacher
    features = bundle.BundledFeatures(teacher)
    pipe, adapter = bundle.load_teacher(name=teacher), load_adapter(options.adapter or teacher)
    adapter.attach(pipe)
    asked = question(teacher, features)
    each, rows = options.each, []
    own = torch.arange(len(asked.told)).repeat(each)
    for scale in (1.0, *options.scales):
        for variant in ("none",) if scale == 1 else ("cfg", "adapter"):
            drawn = pictures(pipe, teacher, asked.told * each, variant, scale, adapter, options.steps)
            found = in_batches(features.images, drawn)
            row = {"variant": variant, "guidance_scale": scale, "top1": top1(found, own, asked)}
            near = bootstrap(lambda some: frechet_distance(some, features.reference), found, resamples=RESAMPLES)
            rows.append(row | {"frechet": vars(near), "diversity": diversity(found, each)})
            print(rows[-1], flush=True)
    real = top1(*real_pictures(features, asked), asked)
    results = {"prompts": len(asked.told), "each": each, "among": AMONG, "steps": options.steps, "real": real}
    save(RESULTS / f"retrieval{teacher.removeprefix(bundle.UNET)}.json", made, results | {"rows": rows})


def real_pictures(features: bundle.BundledFeatures, asked: Question) -> tuple[Tensor, Tensor]:
    """Return features [N, D] of real pictures and what they show: of all classes, or of the held-out prompts."""
    if features.labels is not None:
        return features.reference, features.labels.long()
    order = {caption: index for index, caption in enumerate(asked.told)}
    captions = read_conditions(bundle.FOLDERS[features.name] / "held_out_prompts.txt")
    return features.held_out, torch.tensor([order[caption] for caption in captions])


if __name__ == "__main__":
    main()
