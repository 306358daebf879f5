"""Guidance other than plain CFG as teacher: negative prompts, and three passes folded into one.

    python benchmarks/guidances.py negative [--teacher bundled-sd3]
    python benchmarks/guidances.py pag

`negative`: adapters conditioned on negative prompts, which the base's cross-attentions read where it has some, and of
which they have a pooled code alone, against teachers with and without the negative prompt, on prompts and negative
prompts that were not trained on. `pag`:
perturbed attention guidance (2403.17377) on top of CFG, three passes a step, folded into one.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import PartialState
from diffusers import StableDiffusionPAGPipeline

from common import RESULTS, provenance, save
from guidefold.adapters import ConditionSpec
from guidefold.adapters.readers import find_readers
from guidefold.capture.run import run
from guidefold.capture.tape import Tape
from guidefold.config import TrainConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.denoiser import find_denoiser
from guidefold.distillation.run import distill, record
from guidefold.distillation.run import train as train_on
from guidefold.distillation.student import Student, energies
from guidefold.keeping import Adapter
from guidefold.trajectories.conditions import negative_prompt
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import States
from guidefold.trajectories.store import Store

JUDGED = 32  # held-out prompts
JUDGED_NEGATIVE = 96  # half of them with a negative prompt
SCALES = (2.0, 4.0, 8.0)
PAG_SCALE = 2.0
STYLES = ("", ", noto", "", ", twemoji")
STRETCH = 10  # names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("negative", "pag"))
    parser.add_argument("--teacher", choices=(bundle.UNET, bundle.SD3), default=bundle.UNET, help="of negative")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--trajectories", type=int, default=256)
    parser.add_argument("--init", help="adapter to start from, such as bundled")
    parser.add_argument("--work", type=Path, help="folder of the run, which resumes; default: a temporary one")
    options = parser.parse_args()
    made, work = provenance(), options.work or Path(tempfile.mkdtemp())
    train = TrainConfig(
        steps=options.steps, batch_size=32, learning_rate=3e-3, warmup=0.05, ema_decay=0.99, validation=24,
        validate_every=250, checkpoint_every=100, init=options.init,
    )  # fmt: skip
    if options.what == "negative":
        results = {"rows": list(negative(options.teacher, train, options.trajectories, work))}
    else:
        results = pag(train, options.trajectories, work)
    budget = {"steps": options.steps, "trajectories": options.trajectories, "init": options.init}
    suffix = options.teacher.removeprefix(bundle.UNET)
    name = {"negative": "negatives"}.get(options.what, options.what)
    save(RESULTS / f"{name}{suffix}.json", made, budget | results)


def trained(pipe: Any, train: TrainConfig, trajectory: TrajectoryConfig, work: Path) -> Adapter:
    adapter = distill(pipe, bundle.prompts(), work, trajectory=trajectory, config=train)
    if not PartialState().is_main_process:
        sys.exit()  # one of `torchrun --nproc-per-node N` judges
    return adapter


def judged_states(
    pipe: Any, scale: float, prompts: list[str], call: dict[str, Any], **settings: Any
) -> tuple[Recorder, States]:
    """Return states of held-out prompts at one scale."""
    config = TrajectoryConfig(
        trajectories=len(prompts), keep=10, scale_min=scale, scale_max=scale, seed=1_000_000,
        record_batch=len(prompts), **settings,
    )  # fmt: skip
    recorder = Recorder(pipe, prompts, config, **call)
    return recorder, recorder.states(range(len(prompts)))


def recovered(student: Student, states: States) -> float:
    missed, whole = energies(student, states)
    return 1 - float(missed.sum() / whole.sum())


def negative(teacher: str, train: TrainConfig, trajectories: int, work: Path) -> Iterator[dict[str, Any]]:
    """Train with readers, if there are any, and without; judge each at several scales and by its pictures."""
    pipe, call, (known, unknown) = bundle.load_teacher(name=teacher), bundle.CALLS[teacher], negatives()
    drawn = TrajectoryConfig(trajectories=trajectories, keep=20, record_batch=32, shard=32, negatives=known)
    store = record(pipe, bundle.prompts(teacher), work / "store", drawn, **call).folder
    spec = ConditionSpec(**Store.open(store).header["spec"])
    for seen in (True, False) if find_readers(find_denoiser(pipe), spec) else (False,):
        without = nullcontext() if seen else patch("guidefold.adapters.network.find_readers", lambda *_: {})
        with without:
            adapter = train_on(pipe, work / ("seen" if seen else "pooled"), store=store, config=train)
        row: dict[str, Any] = {"tokens": seen, "parameters": adapter.parameter_count()}
        row |= {"scales": [at_scale(pipe, adapter, teacher, scale, unknown) for scale in SCALES]}
        print(row, flush=True)
        yield row | {"images": images(pipe, adapter, teacher, unknown)}


def at_scale(pipe: Any, adapter: Any, teacher: str, scale: float, unknown: tuple[str, ...]) -> dict[str, float]:
    """Return guidance recovered at a scale, of negative prompts that were not trained on and of none."""
    prompts, call = bundle.held_out_prompts(teacher)[:JUDGED_NEGATIVE], bundle.CALLS[teacher]
    # all judged trajectories have a negative prompt that was not trained on, but for those that have none
    recorder, states = judged_states(pipe, scale, prompts, call, negatives=unknown)
    has = torch.tensor([bool(negative_prompt(recorder.config, int(i))) for i in states["trajectory"]])
    denoiser = find_denoiser(pipe)
    student = Student(denoiser, adapter.attach(denoiser), recorder.static)
    told = {name: value[has] for name, value in states.items()}
    none = {name: value[~has] for name, value in states.items()}
    empty = {name: value[:1].expand_as(told[name]) for name, value in none.items() if name.startswith("negative.")}
    found = {
        "guidance_scale": scale,
        "with_negative_prompt": recovered(student, told),
        "with_negative_prompt_but_not_told": recovered(student, told | empty),
        "without_negative_prompt": recovered(student, none),
    }
    adapter.detach()
    return found


def negatives() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return negative prompts to train on and to judge with: names of pictures, with and without a style.

    Every tenth stretch of the alphabet is judged, so that variants of a picture, such as skin tones, are on one side.
    """
    names = sorted({prompt.rpartition(",")[0] for prompt in bundle.prompts()})
    texts = [f"{name}{STYLES[number % len(STYLES)]}" for number, name in enumerate(names)]
    judged = [text for number, text in enumerate(texts) if number // STRETCH % 10 == 9]
    return tuple(text for text in texts if text not in judged), tuple(judged)


def images(pipe: Any, adapter: Any, teacher: str, names: tuple[str, ...]) -> dict[str, float]:
    """Return the mean squared distance of final latents from the student's to each teacher's, same noise.

    `nearer_...` is the part of the images that is nearer to the teacher with the negative prompt.
    """
    prompts = bundle.held_out_prompts(teacher)[:JUDGED_NEGATIVE]
    rejected = [names[number * len(names) // len(prompts)] for number in range(len(prompts))]

    def sample(negative: list[str] | None) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
        call = {"num_inference_steps": 20, "guidance_scale": 4.0, "output_type": "latent", "generator": generators}
        call |= bundle.CALLS[teacher]
        tape: Tape = run(pipe, {"prompt": prompts, "negative_prompt": negative, **call})
        return tape.result.images

    def distances(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).square().flatten(1).mean(1)

    prompted, plain = sample(rejected), sample(None)
    adapter.attach(pipe)
    students = {"student": sample(rejected), "untold_student": sample(None)}
    adapter.detach()
    found = {"teachers_apart": float(distances(prompted, plain).mean())}
    for name, latents in students.items():
        to_teacher, to_plain = distances(latents, prompted), distances(latents, plain)
        found[f"{name}_to_negative_prompted_teacher"] = float(to_teacher.mean())
        found[f"{name}_to_plain_teacher"] = float(to_plain.mean())
        found[f"nearer_{name}"] = float((to_teacher < to_plain).float().mean())
    return found


def pag(train: TrainConfig, trajectories: int, work: Path) -> dict[str, Any]:
    teacher = bundle.load_teacher()
    pipe = StableDiffusionPAGPipeline(**teacher.components, pag_applied_layers=["mid"], requires_safety_checker=False)
    ranges = (f"pag_scale={PAG_SCALE}:{PAG_SCALE}",)
    drawn = TrajectoryConfig(trajectories=trajectories, keep=20, record_batch=32, shard=32, dials=ranges)
    adapter, rows = trained(pipe, train, drawn, work), []
    for scale in SCALES:
        recorder, states = judged_states(pipe, scale, bundle.held_out_prompts()[:JUDGED], {}, dials=ranges)
        student = Student(pipe.unet, adapter.attach(pipe.unet), recorder.static)
        rows.append({"guidance_scale": scale, "recovered": recovered(student, states)})
        adapter.detach()
        print(rows[-1], flush=True)
    call = {"prompt": bundle.held_out_prompts()[:4], "num_inference_steps": 20, "guidance_scale": 4.0}
    call |= {"pag_scale": PAG_SCALE, "output_type": "latent"}
    guided = run(pipe, call).rows
    adapter.attach(pipe)
    folded = run(pipe, call).rows
    adapter.detach()
    passes = {"teacher_passes_per_step": guided / 4 / 20, "student_passes_per_step": folded / 4 / 20}
    return {"pag_scale": PAG_SCALE, **passes, "rows": rows}


if __name__ == "__main__":
    main()
