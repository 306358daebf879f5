"""The training loop: resumable by statelessness, since data order and learning rate are pure functions of the step."""

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from guidefold.acting.placing import settle
from guidefold.adapters.targets import last_blocks
from guidefold.config import TrainConfig
from guidefold.distillation.checkpoint import NAME as CHECKPOINT
from guidefold.distillation.checkpoint import load_checkpoint, save_checkpoint
from guidefold.distillation.ema import Average
from guidefold.distillation.log import LOG, add_row, rewind
from guidefold.distillation.losses import guidance_loss, guidance_weights
from guidefold.distillation.parts import Parts, share, shares
from guidefold.distillation.sharding import is_asked, shard
from guidefold.distillation.states import Source
from guidefold.distillation.student import Student, energies
from guidefold.errors import RoomError, TrainingError
from guidefold.keeping.hub import save_pretrained
from guidefold.memory import memory_told
from guidefold.room import execution_device, is_offloaded, weights_kept
from guidefold.trajectories.states import States
from guidefold.ui import progress

LESS = "give a smaller batch_size and another output folder"


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
    parts: int = 1  # that a batch is computed in, so that a resumed run rounds as one that was not interrupted
    row: dict[str, Any] | None = None  # the log's line of a step that was taken, but not yet validated and logged

    @property
    def logged(self) -> int:
        return self.step if self.row is None else self.step - 1

    def to_dict(self) -> dict[str, Any]:
        recovered = None if self.best_step == 0 else self.recovered
        return {
            "step": self.step,
            "recovered": recovered,
            "best_step": self.best_step,
            "parts": self.parts,
            "row": self.row,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Best":
        changes: dict[str, Any] = {} if values["recovered"] is not None else {"recovered": -math.inf}
        return cls(**{**values, **changes})


class Loop:
    """One run: what it trains, what it has learnt so far and where it writes."""

    def __init__(self, student: Student, source: Source, config: TrainConfig, folder: Path) -> None:
        self.student, self.source, self.config, self.folder = student, source, config, folder
        # another run in this process may have used another precision
        AcceleratorState._reset_state()
        self.device = execution_device(student.denoiser)  # one of several GPUs is the one that holds the model
        self.offloaded = is_offloaded(student.denoiser)
        self.last = tuple(f"{name}." for name in last_blocks(student.denoiser))
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            cpu=self.device.type == "cpu" and not (is_asked() and torch.cuda.is_available()),
            log_with=config.tracker,
            project_dir=str(folder),
        )
        if is_asked():
            self.device = self.accelerator.device
            shard(student.denoiser, self.device, [network for _, network in student.makers])
        self.adapter = student.adapter.to(self.device, torch.float32).train().requires_grad_(True)
        if "hf_device_map" in vars(student.denoiser):
            settle(self.adapter, student.denoiser, self.device)
        parameters = self.adapter.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.average = Average(self.adapter, config.ema_decay)
        self.best = Best(parts=config.accumulation or 1)
        if saved := load_checkpoint(folder, self.adapter, self.average, optimizer):
            self.best = Best.from_dict(saved)
            self.best.parts = config.accumulation or self.best.parts
        self.raw_optimizer = optimizer
        # the student is not wrapped: its few gradients are averaged here, once a step, whatever shares the base model
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        self.parts = Parts(self.accelerator, config, self.device)
        if config.tracker:
            self.accelerator.init_trackers("guidefold", config={k: str(v) for k, v in config.to_dict().items()})

    def run(self) -> Best:
        """Train to the last step; Ctrl-C keeps what was learnt.

        Raises TrainingError where it diverges, or does not fit in memory.
        """
        if self.accelerator.is_main_process:
            rewind(self.folder / LOG, self.best.logged)
        try:
            with memory_told(LESS, TrainingError), progress("Training", self.config.steps, self.best.logged) as bar:
                while self.best.logged < self.config.steps:
                    bar.advance(text=f"loss {self.advance():.3f}")
        except (KeyboardInterrupt, RoomError):
            self.save()
            raise
        finally:
            if self.config.tracker:
                self.accelerator.end_training()
        self.finish()
        return self.best

    def advance(self) -> float:
        """Take a step, validate, log and save when it is time; what was interrupted halfway is gone on with."""
        row = self.best.row or self.step(self.best.step)
        if self.due(self.config.validate_every):
            row = row | self.validate()
        with held_back():
            self.log(row)
            self.best.row = None
        if self.due(self.config.checkpoint_every):
            self.save()
        return row["loss"]

    def due(self, every: int) -> bool:
        return self.best.step % every == 0 or self.best.step == self.config.steps

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to the log. Raises TrainingError if the disk is full."""
        if not self.accelerator.is_main_process:
            return
        add_row(self.folder / LOG, row)
        if self.config.tracker:
            self.accelerator.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])

    def step(self, step: int) -> dict[str, Any]:
        """Take one optimizer step and return its line of the log."""
        rate = learning_rate(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.source.batch(step)
        weight = guidance_weights(batch["energy"])
        # processes average their gradients, so that each asks for as many times its share
        states = self.mine(batch | {"weight": weight * self.accelerator.num_processes})
        total, self.best.parts = self.parts.fitting(self.best.parts, lambda parts: self.gradients(states, parts))
        total = self.mean(total)
        self.check("loss", total, step)
        self.average_gradients(step)
        norm = float(self.accelerator.clip_grad_norm_(self.adapter.parameters(), self.config.max_grad_norm) or 0.0)
        if self.accelerator.scaler is None:  # which skips a step whose gradients overflow, and goes on
            self.check("gradient norm", norm, step)
        row = {"step": step, "loss": total, "learning_rate": rate, "grad_norm": norm}
        with held_back():
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(self.adapter, step)
            self.best.step, self.best.row = step + 1, row
        return row

    def gradients(self, states: States, parts: int) -> float:
        """Leave the gradients of a batch, computed in parts and averaged over processes; return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for chunk in shares(states, parts):
            with self.accelerator.autocast(), weights_kept() if self.offloaded else nullcontext():
                loss = guidance_loss(self.student(chunk), chunk["pred_guided"], chunk["weight"])
            self.accelerator.backward(loss)
            total += loss.detach()
        return float(total)  # waits for the device, once a step

    def average_gradients(self, step: int) -> None:
        """Average gradients over processes. Raises TrainingError for a parameter that has none, but in a last block.

        There text may have no answer any more, and what a target changes of it has no effect.
        """
        idle = {f"layers.{number}." for number, name in enumerate(self.adapter.layered) if name.startswith(self.last)}
        lacking = [name for name, value in self.adapter.named_parameters() if value.grad is None]
        for name in lacking:
            value = self.adapter.get_parameter(name)
            if name.startswith(tuple(idle)) or not value.numel():
                value.grad = torch.zeros_like(value)
        if lacking := [name for name in lacking if self.adapter.get_parameter(name).grad is None]:
            raise TrainingError(
                f"no gradient reaches the adapter's {lacking[0]} and {len(lacking) - 1} other parameters at step "
                f"{step}; a layer of {type(self.student.denoiser).__name__} passes none on, as some quantised ones do: "
                "load the model otherwise"
            )
        if self.accelerator.num_processes > 1:
            gradients: list[Any] = [value.grad for value in self.adapter.parameters()]
            flat = self.accelerator.reduce(torch.cat([one.flatten().to(self.device) for one in gradients]), "mean")
            for one, mean in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):  # pyright: ignore[reportAttributeAccessIssue]
                one.copy_(mean.view_as(one))

    def check(self, name: str, value: float, step: int) -> None:
        """Raise TrainingError, which says how to go on without recording again, unless a number is finite."""
        if math.isfinite(value):
            return
        store, checkpoint = self.folder / "store", self.folder / CHECKPOINT
        raise TrainingError(
            f"the {name} is {value} at step {step}; train "
            + (f"from the store {store} " if store.exists() else "")
            + f"into a new folder with a learning_rate below {self.config.learning_rate:g}"
            + (", or mixed_precision bf16" if self.config.mixed_precision == "fp16" else "")
            + (f"; the checkpoint in {self.folder} is kept" if checkpoint.exists() else "")
        )

    def mean(self, value: float) -> float:
        """Return the mean of all processes' values: what one finds wrong stops all."""
        if self.accelerator.num_processes == 1:
            return value
        return float(self.accelerator.reduce(torch.tensor(value, device=self.device), "mean"))  # pyright: ignore[reportArgumentType]

    def mine(self, states: States) -> States:
        """Return this process's share of a batch, on its device."""
        mine = share(states, self.accelerator.process_index, self.accelerator.num_processes)
        return {name: value.to(self.device, non_blocking=True) for name, value in mine.items()}

    def validate(self) -> dict[str, float]:
        """Measure guidance recovered on held-out trajectories with averaged weights, and keep the best of them.

        Raises TrainingError where it is not finite.
        """
        missed = whole = 0.0
        with self.average.applied(self.adapter):
            for states in self.source.validation():
                mine = self.mine(states | {"weight": torch.ones(len(states["pred_guided"]))})
                parts = -(-len(mine["weight"]) * self.best.parts // self.parts.most)  # as large as those of training
                sums, _ = self.parts.fitting(parts, lambda parts, mine=mine: self.measured(mine, parts))
                missed, whole = missed + sums[0], whole + sums[1]
            missed, whole = self.mean(missed), self.mean(whole)
            if not whole:
                return {}
            recovered = 1 - missed / whole
            self.check("validation", recovered, self.best.step - 1)
            if recovered > self.best.recovered:
                self.write("best", recovered)
                self.best.recovered, self.best.best_step = recovered, self.best.step
        return {"validation": recovered}

    def measured(self, states: States, parts: int) -> list[float]:
        """Return what the student misses of these states' guidance, and how much there is, computed in parts."""
        sums = torch.zeros(2, device=self.device)
        for chunk in shares(states, parts):
            sums += torch.stack([(one * chunk["weight"]).sum() for one in energies(self.student, chunk)])
        return sums.tolist()

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
        self.accelerator.wait_for_everyone()  # others read what the main process writes


@contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C wait: weights, average and step are never left at odds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt
