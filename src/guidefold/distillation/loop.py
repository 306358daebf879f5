"""The training loop: resumable by statelessness, since data order and learning rate are pure functions of the step."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from guidefold.adapters.hub import save_pretrained
from guidefold.config import TrainConfig
from guidefold.distillation.checkpoint import load_checkpoint, save_checkpoint
from guidefold.distillation.ema import Average
from guidefold.distillation.states import Source
from guidefold.distillation.student import Student, energies
from guidefold.errors import TrainingError
from guidefold.trajectories.recorder import States
from guidefold.ui import progress

LOG = "log.jsonl"


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to zero."""
    warm = max(1.0, config.warmup * config.steps)
    rise = min(1.0, (step + 1) / warm)
    fall = max(0.0, step - warm) / max(1.0, config.steps - warm)
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * fall))


@dataclass
class Best:
    """How far a run is, and how good its best weights were."""

    step: int = 0
    recovered: float = -math.inf
    best_step: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {"step": self.step, "recovered": None if self.best_step == 0 else self.recovered, "best_step": self.best_step}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Best":
        recovered = values["recovered"]
        return cls(values["step"], -math.inf if recovered is None else recovered, values["best_step"])


class Loop:
    """One run: what it trains, what it has learnt so far and where it writes."""

    def __init__(self, student: Student, source: Source, config: TrainConfig, folder: Path) -> None:
        self.student, self.source, self.config, self.folder = student, source, config, folder
        # another run in this process may have used another precision
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=parameter_device(student.denoiser).type == "cpu",
            log_with=config.tracker,
            project_dir=str(folder),
        )
        self.adapter = student.adapter.to(self.accelerator.device, torch.float32).train().requires_grad_(True)
        parameters = self.adapter.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.average = Average(self.adapter, config.ema_decay)
        self.best = Best()
        if saved := load_checkpoint(folder, self.adapter, self.average, optimizer):
            self.best = Best.from_dict(saved)
        self.raw_optimizer = optimizer
        self.model, self.optimizer = self.accelerator.prepare(student, optimizer)
        if config.tracker:
            self.accelerator.init_trackers("guidefold", config={k: str(v) for k, v in config.to_dict().items()})

    def run(self) -> Best:
        """Train to the last step; Ctrl-C keeps what was learnt. Raises TrainingError when the loss is not finite."""
        rewind_log(self.folder / LOG, self.best.step)
        steps = self.config.steps
        with progress("Training", steps, self.best.step) as bar, (self.folder / LOG).open("a", encoding="utf-8") as log:
            try:
                while self.best.step < steps:
                    row = self.step(self.best.step)
                    self.best.step += 1
                    row |= self.housekeeping()
                    log.write(json.dumps(row) + "\n")
                    log.flush()
                    bar.advance(text=f"loss {row['loss']:.3f}")
                    if self.config.tracker:
                        self.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])
            except KeyboardInterrupt:
                self.save()
                raise
        self.finish()
        return self.best

    def housekeeping(self) -> dict[str, float]:
        """Validate and save when it is time."""
        step, last, row = self.best.step, self.best.step == self.config.steps, {}
        if step % self.config.validate_every == 0 or last:
            row = self.validate()
        if step % self.config.checkpoint_every == 0 or last:
            self.save()
        return row

    def step(self, step: int) -> dict[str, Any]:
        """Take one optimizer step and return its line of the log."""
        rate = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        states, parts = self.mine(self.source.batch(step)), self.config.accumulation
        total = 0.0
        for part in range(parts):
            chunk = {name: value[part::parts] for name, value in states.items()}
            held = self.accelerator.no_sync(self.model) if part + 1 < parts else nullcontext()
            with held, self.accelerator.autocast():
                loss = loss_of(self.model, chunk) / parts
                self.accelerator.backward(loss)
            total += float(loss.detach())
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss is {total} at step {step}; the checkpoint in {self.folder} is kept: delete the folder and train with a "
                f"learning_rate below {self.config.learning_rate:g}" + (", or mixed_precision bf16" if self.config.mixed_precision == "fp16" else "")
            )
        norm = self.accelerator.clip_grad_norm_(self.adapter.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.adapter, step)
        return {"step": step, "loss": total, "learning_rate": rate, "grad_norm": float(norm) if norm is not None else 0.0}

    def mine(self, states: States) -> States:
        """Return this process's share of a batch, on its device."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return {name: value[rank::world].to(self.accelerator.device) for name, value in states.items()}

    def validate(self) -> dict[str, float]:
        """Measure guidance recovered on held-out conditions with averaged weights, and keep the best of them."""
        missed = whole = 0.0
        with self.average.applied(self.adapter):
            for states in self.source.validation():
                on_device = {name: value.to(self.accelerator.device) for name, value in states.items()}
                student, bare = energies(self.student, on_device)
                missed, whole = missed + float(student.sum()), whole + float(bare.sum())
            if not whole:
                return {}
            recovered = 1 - missed / whole
            if recovered > self.best.recovered:
                self.best.recovered, self.best.best_step = recovered, self.best.step
                self.write("best", recovered)
        return {"validation": recovered}

    def write(self, name: str, recovered: float | None) -> None:
        """Write the adapter's current weights as a finished adapter."""
        if self.accelerator.is_main_process:
            self.adapter.trained |= {"steps": self.best.step, "recovered": recovered}
            save_pretrained(self.adapter, self.folder / name)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder, self.best.to_dict(), self.adapter, self.average, self.raw_optimizer)

    def finish(self) -> None:
        """Leave the averaged weights in the adapter and on disk."""
        self.average.copy(self.average.values, self.adapter)
        self.write("last", None)
        if not self.best.best_step:
            self.write("best", None)
        if self.config.tracker:
            self.accelerator.end_training()


def loss_of(model: nn.Module, states: States) -> Tensor:
    """Return the loss through whatever accelerate wrapped the student in."""
    from guidefold.distillation.losses import guidance_loss

    return guidance_loss(model(states), states["pred_guided"], states["pred_cond"], states["guidance_scale"])


def parameter_device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def rewind_log(path: Path, step: int) -> None:
    """Drop the lines of steps that will be taken again."""
    if not path.exists():
        return
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if is_before(line, step)]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")
    os.replace(partial, path)


def is_before(line: str, step: int) -> bool:
    """Tell whether a line of the log is whole and of an earlier step; a killed run may leave half a line."""
    try:
        return json.loads(line)["step"] < step
    except (ValueError, KeyError):
        return False


@contextmanager
def frozen(denoiser: Any, *, gradient_checkpointing: bool) -> Iterator[None]:
    """Freeze a denoiser for a while, and leave it as it was."""
    training, needed = denoiser.training, {name for name, value in denoiser.named_parameters() if value.requires_grad}
    was_checkpointing = getattr(denoiser, "is_gradient_checkpointing", False)
    denoiser.eval().requires_grad_(False)
    if gradient_checkpointing and not was_checkpointing:
        denoiser.enable_gradient_checkpointing()
    try:
        yield
    finally:
        if gradient_checkpointing and not was_checkpointing:
            denoiser.disable_gradient_checkpointing()
        denoiser.train(training)
        for name, value in denoiser.named_parameters():
            value.requires_grad_(name in needed)
