"""What a LoRA file keeps of guidance at one scale: a plain LoRA trained for it, and the deltas of a film adapter.

`python benchmarks/lora.py`: three adapters of the bundled teacher, trained alike on trajectories of one guidance scale.
"""

import argparse
import tempfile
from pathlib import Path

from common import RESULTS, provenance, save
from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.distillation.run import record, train
from guidefold.evaluation.exporting import export, recovered

VARIANTS = {
    "film": AdapterConfig(),
    "film with deltas": AdapterConfig(rank=16),
    "lora": AdapterConfig(design="lora", rank=16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=24, help="held-out prompts to judge on")
    options = parser.parse_args()
    made, pipe, scale, rows = provenance(), bundle.load_teacher(), options.guidance_scale, []
    pipe.set_progress_bar_config(disable=True)
    prompts, judged = bundle.held_out_prompts()[: options.prompts], {"steps": 20, "seed": 0, "batch": options.prompts}
    drawn = TrajectoryConfig(trajectories=options.trajectories, scale_min=scale, scale_max=scale)
    settings = TrainConfig(
        steps=options.steps, batch_size=options.batch_size, learning_rate=4e-3, ema_decay=0.97,
        validate_every=options.steps, checkpoint_every=options.steps, validation=8,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        store = record(pipe, bundle.prompts(), Path(work) / "store", drawn)
        for name, shape in VARIANTS.items():
            adapter = train(pipe, Path(work) / name, store=store.folder, adapter=shape, config=settings)
            if shape.rank or shape.design == "lora":
                done = export(
                    pipe, adapter, Path(work) / f"{name}.safetensors", prompts, guidance_scale=scale, **judged
                )
                shares = {"whole": done.whole, "file": done.kept}
            else:
                shares = {"whole": recovered(pipe, adapter, prompts, scale, None, judged), "file": None}
            rows.append({"variant": name, "parameters": adapter.parameter_count(), **shares})
            print(rows[-1], flush=True)
    budget = {name: getattr(options, name) for name in ("guidance_scale", "trajectories", "steps", "batch_size")}
    save(RESULTS / "lora.json", made, {"budget": budget, "judged_prompts": options.prompts, "rows": rows})


if __name__ == "__main__":
    main()
