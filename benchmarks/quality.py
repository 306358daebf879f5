"""The designs, and what else decides how much is learnt, at equal budget.

    python benchmarks/quality.py data
    python benchmarks/quality.py output
    python benchmarks/quality.py loss
    python benchmarks/quality.py scales
    python benchmarks/quality.py race

`data`: recorded trajectories against noised data. `output`: the layer that makes the prediction adapted in proportion
to guidance_scale - 1 and those before it by its tanh, against guidance_scale - 1 at the layers before it alone. `loss`:
every state's share of guidance counted alike, against plain squared errors. `scales`: each state at the scale of its
trajectory, against a new one every time that it is drawn.

`race`: the default against its own settings, every other design and other people's methods (`peers.py`, `paper.py`), in
shapes that people would use; with `--minutes` each is trained for that long, instead of equally many steps.

Every adapter is trained with the same steps, batches and trajectories, once from each of several seeds (of
initialisation and order). The figure is guidance recovered on held-out prompts, per prediction, on the teacher's
states and on the student's own.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from common import RESULTS, provenance, save
from guidefold.config import AdapterConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.distillation.losses import guidance_weights
from guidefold.distillation.run import record
from guidefold.distillation.states import RecordedStates
from guidefold.trajectories.store import Store
from judging import Judge
from learning import seconds_per_step, settings, trained
from race import VARIANTS, race
from sources import NoisedData, OtherScales

SCALES = (2.0, 4.0, 8.0)
Rows = Iterator[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("data", "output", "loss", "scales", "race"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--minutes", type=float, help="of the race: train every variant for so long, not for --steps")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="of adapters; peers have their own")
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of initialisation and order")
    parser.add_argument("--judged", type=int, default=48, help="held-out prompts to judge on")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS], help="of the race")
    parser.add_argument("--teacher", choices=bundle.FOLDERS, default=bundle.UNET, help="of race and scales")
    parser.add_argument("--output", help="name of the results; default: what is compared")
    parser.add_argument("--work", type=Path, help="folder that keeps the recorded store; default: a temporary one")
    options = parser.parse_args()
    made = provenance()
    work = options.work or Path(tempfile.mkdtemp())
    pipe = bundle.load_teacher(name=options.teacher)
    trajectory = TrajectoryConfig(trajectories=options.trajectories, keep=10)
    store = record(pipe, bundle.prompts(options.teacher), work / "store", trajectory, **bundle.CALLS[options.teacher])
    judged = bundle.held_out_prompts(options.teacher)[: options.judged]
    options.judge = Judge(pipe, judged, SCALES, **bundle.CALLS[options.teacher])
    work_of = {"data": data, "output": output, "loss": losses, "scales": scales, "race": race}
    length = {"steps": options.steps} if options.minutes is None else {"minutes": options.minutes}
    budget = {
        "teacher": options.teacher,
        **length,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "trajectories": options.trajectories,
        "keep": 10,
        "seeds": len(options.seeds),
    }
    results: dict[str, Any] = {"budget": budget, "judged_prompts": options.judged, "rows": []}
    for seed in options.seeds:
        for row in work_of[options.what](pipe, store, trajectory, options, seed):
            results["rows"].append({"seed": seed, **row})
            print(results["rows"][-1], flush=True)
            # after each, so that an interruption loses one at most
            save(RESULTS / f"{options.output or options.what}.json", made, results)
    if options.work is None:
        shutil.rmtree(work)


def data(pipe: Any, store: Store, trajectory: TrajectoryConfig, options: Any, seed: int) -> Rows:
    """Train the default design on recorded trajectories and on noised data."""
    config = settings(options, "recorded", seed)
    for name in ("trajectories", "noised data"):
        recorded = RecordedStates([store], config)
        source = recorded if name == "trajectories" else NoisedData(pipe, recorded, seed=5)
        yield {"data": name, **trained(pipe, source, AdapterConfig(), config, options.judge)}


def scales(pipe: Any, store: Store, trajectory: TrajectoryConfig, options: Any, seed: int) -> Rows:
    """Train the default design at the scales that states were recorded at, and at others."""
    config = settings(options, "recorded", seed)
    for name in ("recorded", "drawn anew"):
        recorded = RecordedStates([store], config)
        source = recorded if name == "recorded" else OtherScales(pipe, recorded, seed)
        seconds = seconds_per_step(pipe, source, AdapterConfig(), config)
        row = trained(pipe, source, AdapterConfig(), config, options.judge)
        yield {"scales": name, "seconds_per_step": round(seconds, 3), **row}


def output(pipe: Any, store: Store, trajectory: TrajectoryConfig, options: Any, seed: int) -> Rows:
    """Train the default design with and without the layer that makes the prediction."""
    config = settings(options, "recorded", seed)
    for name in ("adapted", "not adapted"):
        source = RecordedStates([store], config)
        if name == "not adapted":
            source.spec = replace(source.spec, output=None)
        yield {"output": name, **trained(pipe, source, AdapterConfig(), config, options.judge)}


def plain(energy: Tensor) -> Tensor:
    """Return the weights [B] of plain squared errors, divided by those of the bare model."""
    return (1 / energy.sum()).expand_as(energy)


def losses(pipe: Any, store: Store, trajectory: TrajectoryConfig, options: Any, seed: int) -> Rows:
    """Train the default design with both weights of states."""
    config = settings(options, "recorded", seed)
    for name, weights in (("every state alike", guidance_weights), ("plain squared errors", plain)):
        with patch("guidefold.distillation.loop.guidance_weights", weights):
            row = trained(pipe, RecordedStates([store], config), AdapterConfig(), config, options.judge)
        yield {"loss": name, **row}


if __name__ == "__main__":
    main()
