"""One small resumable training loop for every part of the teachers."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from orthogonal import Orthogonal

CHECKPOINT_SECONDS, LOG_SECONDS = 180, 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to train: `warm` and `cooldown` in steps; `minutes` bounds the time of this run alone.

    With `orthogonal`, matrices and kernels within blocks are trained by Muon, all else by AdamW.
    """

    steps: int
    batch: int
    peak: float
    warm: int = 200
    cooldown: int = 0
    decay: float = 0.999
    weight_decay: float = 0.01
    orthogonal: bool = False
    minutes: float = float("inf")
    seed: int = 0


def learning_rate(step: int, plan: Plan) -> float:
    """Warm up, stay at the peak, fall to zero over the last `cooldown` steps: a pure function of the step.

    Without a cooldown there is no end to plan for, so that training can go on for as long as there is time.
    """
    warm = min(1.0, (step + 1) / max(1, plan.warm))
    return plan.peak * warm * min(1.0, (plan.steps - step) / max(1, plan.cooldown))


def batch_indices(step: int, batch: int, size: int, seed: int) -> Tensor:
    """Return the examples of a step: epochs of shuffled data, a pure function of (seed, step)."""
    first, picked = step * batch, []
    while len(picked) < batch:
        epoch, offset = divmod(first + len(picked), size)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        picked += order[offset : offset + batch - len(picked)].tolist()
    return torch.tensor(picked)


def taken(checkpoint: Path) -> int:
    """Return how many steps a checkpoint has behind it."""
    with safe_open(checkpoint, "pt") as file:
        return int(file.metadata()["step"])


class Halt:
    """Tells when to stop: after so many minutes, or when the process is asked to end; a step is never cut short."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.asked = False

    def __enter__(self) -> "Halt":
        self.before = {one: signal.signal(one, self.ask) for one in (signal.SIGTERM, signal.SIGINT)}
        return self

    def ask(self, *_: object) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked or time.monotonic() > self.end

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for one, handler in self.before.items():
            signal.signal(one, handler)


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return what trains a model: AdamW, and Muon at what lies in its blocks and multiplies if the plan says so."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner = [n for n, p in trained.items() if plan.orthogonal and p.dim() > 1 and "block" in n and "emb" not in n]
    settings = dict(lr=plan.peak, weight_decay=plan.weight_decay)
    rest = [p for name, p in trained.items() if name not in inner]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=(0.9, 0.99), **settings)]
    return [*found, Orthogonal([trained[name] for name in inner], **settings)] if inner else found


class State:
    """What a training consists of, and how it is kept: model, average, optimizer, the step to go on from, seconds."""

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.model, self.step, self.seconds = model, 0, 0.0
        self.optimizers = optimizers(model, plan)
        self.ema = {k: v.detach().clone() for k, v in model.named_parameters()}

    def save(self, path: Path) -> None:
        """Write a checkpoint in one piece: it is there completely or not at all."""
        tensors = {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        tensors |= {f"ema.{k}": v.contiguous() for k, v in self.ema.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{k}": v.contiguous() for k, v in state.items()}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"step": str(self.step), "seconds": str(self.seconds)})
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        tensors = load_file(path)
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name in self.ema:
            self.ema[name].copy_(tensors[f"ema.{name}"])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{number}."):
                    _, _, index, field = key.split(".", 3)
                    state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        self.step = taken(path)
        with safe_open(path, "pt") as file:
            self.seconds = float(file.metadata()["seconds"])


def advance(state: State, loss: Tensor, plan: Plan) -> None:
    """Take one step down a loss and move the average along."""
    state.model.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(state.step, plan)
        optimizer.step()
    blend = min(plan.decay, (state.step + 1) / (state.step + 10))
    torch._foreach_lerp_(list(state.ema.values()), [p.detach() for p in state.model.parameters()], 1 - blend)
    state.step += 1


def fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    *,
    size: int,
    plan: Plan,
    run: Path,
) -> nn.Module:
    """Train until the plan's end, going on from the last checkpoint in `run`; return the model with averaged weights.

    `loss_of(indices, generator)` returns the loss of a batch; everything random in it comes from the generator, which
    is seeded by (seed, step), so that an interrupted run ends like an uninterrupted one.
    """
    run.mkdir(parents=True, exist_ok=True)
    state, checkpoint = State(model, plan), run / f"{name}.safetensors"
    if checkpoint.exists():
        state.load(checkpoint)
    if state.step < plan.steps:
        go(name, state, loss_of, size=size, plan=plan, checkpoint=checkpoint)
    model.load_state_dict(state.ema, strict=False)
    return model.eval()


def note(log: TextIO, **row: float) -> None:
    log.write(json.dumps(row) + "\n")
    log.flush()


def go(
    name: str,
    state: State,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    *,
    size: int,
    plan: Plan,
    checkpoint: Path,
) -> None:
    """Take the steps that are left, with a bar, a log and checkpoints."""
    device = next(state.model.parameters()).device
    columns = [TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    began, before, average = time.monotonic(), state.seconds, None
    saved = logged = began
    with (
        Halt(plan.minutes) as halt,
        Progress(*columns, TextColumn("{task.fields[loss]}")) as progress,
        checkpoint.with_suffix(".jsonl").open("a") as log,
    ):
        bar = progress.add_task(name, total=plan.steps, completed=state.step, loss="")
        while state.step < plan.steps and not halt:
            generator = torch.Generator(device).manual_seed(plan.seed * 1_000_003 + state.step)
            loss = loss_of(batch_indices(state.step, plan.batch, size, plan.seed), generator)
            advance(state, loss, plan)
            # read now and then only: on a GPU, reading a number waits for all that is under way
            average = loss.detach() if average is None else average.lerp(loss.detach(), 0.02)
            state.seconds = before + time.monotonic() - began
            progress.update(bar, advance=1)
            if time.monotonic() - logged > LOG_SECONDS or state.step == plan.steps:
                logged, value = time.monotonic(), average.item()
                progress.update(bar, loss=f"loss {value:.4f}")
                note(log, step=state.step, loss=value, seconds=round(state.seconds))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                state.save(checkpoint)
                saved = time.monotonic()
        state.save(checkpoint)
