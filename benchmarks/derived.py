"""The adapter of a base on models derived from the base: does it serve them as it is?

`python benchmarks/derived.py --cache FOLDER`: the bundled text-to-image model is fine-tuned wholly on one style, by a
LoRA on another, and gets a ControlNet that follows edges; `FOLDER` keeps the drawings, which come from npm packages.
The two that learn a style are told names alone and judged on names of that style that they were not shown. The
ControlNet draws one style's outlines in the others.

Each is judged with the base's adapter, untouched, and those of a style also with one that was trained further on it.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from common import RESULTS, ROOT, provenance, save
from compare import VARIANTS, strip
from deriving import Drawings, as_picture, edges_of, tuned, with_controlnet, with_lora
from guidefold.config import TrainConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.distillation.run import record, train
from guidefold.evaluation.judge import in_batches
from guidefold.evaluation.media import to_image
from guidefold.evaluation.metrics import bootstrap, clip_score, frechet_distance
from guidefold.evaluation.predictions import on_own_states, on_teacher_states
from guidefold.evaluation.sampling import sample
from guidefold.keeping import Adapter
from guidefold.models import load_adapter

SCALES = (2.0, 6.0)
HELD_OUT = 48  # names of a style that are judged
TUNED, LORA = "fluent", "streamline"  # the styles that are learnt
OUTLINES, DRAWN = 8, "noto"  # names whose outlines are followed, and the style that they are of
STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Group:
    """What is sampled at once: prompts, what the judge is told of them, and arguments of the call."""

    prompts: list[str]
    captions: list[str]
    call: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A derived pipeline, what to judge it on, prompts to train an adapter on, and features [N, D] of real pictures."""

    pipe: Any
    groups: list[Group]
    prompts: list[str] | None
    reference: Tensor


def of_style(style: str, derive: Callable, drawings: Drawings, features: bundle.BundledFeatures, steps: int) -> Derived:
    """Return the base after it has learnt one style's pictures of names; all but some of the names."""
    places = drawings.of_style(style)
    names = list(places)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    unseen, seen = ([names[index] for index in part] for part in (order[:HELD_OUT], order[HELD_OUT:]))
    pipe = derive(bundle.load_teacher(), seen, drawings.pixels[[places[name] for name in seen]], steps)
    reference = in_batches(features.images, drawings.pixels[list(places.values())].float() / 255)
    return Derived(pipe=pipe, groups=[told(unseen, style)], prompts=seen, reference=reference)


def told(names: list[str], style: str) -> Group:
    return Group(prompts=names, captions=[f"{name}, {style}" for name in names])


def of_edges(drawings: Drawings, features: bundle.BundledFeatures, steps: int) -> Derived:
    """Return the base with a ControlNet, to draw outlines of one style in all others."""
    captions = drawings.trained()
    pixels = drawings.pixels[list(captions.values())]
    pipe = with_controlnet(bundle.load_teacher(), list(captions), pixels, steps)
    drawn = drawings.of_style(DRAWN)
    styles = sorted({one.style for one in drawings.emojis} - {DRAWN})
    groups = []
    for name in list(drawn)[:: len(drawn) // OUTLINES][:OUTLINES]:
        prompts = [f"{name}, {style}" for style in styles]
        outline = as_picture(edges_of(drawings.pixels[drawn[name]][None])[0])
        groups.append(Group(prompts=prompts, captions=prompts, call={"image": outline}))
    return Derived(pipe=pipe, groups=groups, prompts=None, reference=features.reference)


def judged(derived: Derived, adapter: Adapter, features: bundle.BundledFeatures) -> list[dict[str, Any]]:
    """Return, for every scale, guidance recovered, and distances and scores of pictures of all three variants."""
    texts = features.texts([caption for group in derived.groups for caption in group.captions])
    adapter.attach(derived.pipe)
    rows = []
    for scale in SCALES:
        row: dict[str, Any] = {"guidance_scale": scale} | recovered(derived, adapter, scale)
        for variant in VARIANTS:
            found = in_batches(features.images, torch.cat(pictures(derived, adapter, variant, scale)))
            near = bootstrap(lambda own: frechet_distance(own, derived.reference), found)
            row[variant] = {"frechet": vars(near), "clip_score": float(clip_score(found, texts).mean())}
        rows.append(row)
        print(row, flush=True)
    adapter.detach()
    return rows


def recovered(derived: Derived, adapter: Adapter, scale: float) -> dict[str, float]:
    """Return the mean over groups of the guidance recovered on the teacher's states and on own ones."""
    found: dict[str, list[float]] = {"recovered": [], "recovered_on_own_states": []}
    for number, group in enumerate(derived.groups):
        settings = {"steps": STEPS, "seed": 1_000_000 + 1_000 * number, "batch": 32} | group.call
        by_scale, _ = on_teacher_states(derived.pipe, adapter, group.prompts, [scale], **settings)
        own = on_own_states(derived.pipe, adapter, group.prompts, [scale], **settings)
        for name, shares in zip(found, (by_scale, own), strict=True):
            found[name] += shares.values()
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


def pictures(derived: Derived, adapter: Adapter, variant: Any, scale: float) -> list[Tensor]:
    """Return each group's pictures [N, 3, H, W]."""
    found = []
    for number, group in enumerate(derived.groups):
        settings = {"steps": STEPS, "seed": 1_000 * number, "adapter": adapter} | group.call
        found.append(sample(derived.pipe, group.prompts, variant, scale, **settings).outputs)
    return found


def trained_further(derived: Derived, work: Path, trajectories: int, steps: int) -> Adapter:
    """Return the base's adapter after further training on the derived model."""
    config = TrajectoryConfig(trajectories=trajectories, keep=20, record_batch=32, shard=32, scale_max=6)
    assert derived.prompts is not None
    store = record(derived.pipe, derived.prompts, work / "store", config)
    settings = TrainConfig(
        steps=steps, batch_size=32, learning_rate=1e-3, ema_decay=0.97, init=bundle.UNET, validate_every=steps,
        checkpoint_every=steps, validation=8,
    )  # fmt: skip
    return train(derived.pipe, work / "run", store=store.folder, config=settings)


def picture(derived: Derived, adapter: Adapter) -> Image.Image:
    """Return a strip of eight pictures of every variant at scale 4, of one group or the first of each."""
    alone = len(derived.groups) == 1
    places = [(0, index) if alone else (index, 0) for index in range(8)]
    adapter.attach(derived.pipe)
    rows = {}
    for variant, title in VARIANTS.items():
        groups = pictures(derived, adapter, variant, 4.0)
        rows[title] = [to_image(groups[group][index]) for group, index in places]
    adapter.detach()
    return strip(rows, [derived.groups[group].prompts[index].partition(", ")[0] for group, index in places])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the drawings are kept")
    parser.add_argument("--steps", type=int, default=120, help="of deriving a model")
    parser.add_argument("--trajectories", type=int, default=160, help="of training an adapter further")
    parser.add_argument("--adapter-steps", type=int, default=100)
    options = parser.parse_args()
    made, features, drawings = provenance(), bundle.BundledFeatures(), Drawings(options.cache)
    makers = {
        "fine-tuned": lambda: of_style(TUNED, tuned, drawings, features, options.steps),
        "LoRA": lambda: of_style(LORA, with_lora, drawings, features, options.steps),
        "ControlNet": lambda: of_edges(drawings, features, options.steps),
    }
    budget = {"steps": options.steps, "trajectories": options.trajectories, "adapter_steps": options.adapter_steps}
    results: dict[str, Any] = {"budget": budget, "styles": {"fine-tuned": TUNED, "LoRA": LORA}, "models": {}}
    for kind, make in makers.items():
        torch.manual_seed(0)
        derived, base = make(), load_adapter(bundle.UNET)
        found = results["models"][kind] = {"base's": judged(derived, base, features)}
        picture(derived, base).save(ROOT / "docs" / f"derived-{kind.lower()}.png")
        if derived.prompts is not None:
            with tempfile.TemporaryDirectory() as work:
                own = trained_further(derived, Path(work), options.trajectories, options.adapter_steps)
            found["trained further"] = judged(derived, own, features)
        save(RESULTS / "derived.json", made, results)


if __name__ == "__main__":
    main()
