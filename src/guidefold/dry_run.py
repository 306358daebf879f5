"""What a command would cost, told instead of running it: memory with nothing on the device, then a short trial."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from guidefold import models, ui
from guidefold.capture.makers import bound
from guidefold.config import AdapterConfig, HoldingConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import chosen_denoiser
from guidefold.distillation import plan, run
from guidefold.distillation.cost import Cost, recording_cost, training_cost
from guidefold.distillation.freezing import settled_for
from guidefold.distillation.memory import Memory, Sketch, sketch_of_call
from guidefold.distillation.states import RecordedStates, TrialStates
from guidefold.errors import InputError, ModelError
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.several import open_stores


@dataclass(frozen=True, kw_only=True)
class Loader:
    """How a command gets its model; `pipeline` is the one of `commands`, `call` are the arguments of its call."""

    pipeline: Callable[..., Any]
    model: str
    device: str | None
    dtype: str | None
    holding: HoldingConfig
    call: dict[str, Any]
    bare: bool = True  # nothing is put on the model, so that its denoiser can be loaded alone
    controlnet: str | None = None

    @property
    def place(self) -> str:
        return models.best_device(self.device)

    @property
    def plain(self) -> tuple[str, HoldingConfig]:
        """The precision that the device will have, and weights that are whole, for a model that stays on the CPU."""
        kind = str(models.best_dtype(self.dtype, self.place)).removeprefix("torch.")
        return kind, replace(self.holding, quantize=None, offload=None)

    def on_cpu(self) -> Any:
        kind, whole = self.plain
        return self.pipeline(self.model, "cpu", kind, self.call, whole)

    def learning(self, source: RecordedStates, *, on_device: bool) -> Any:
        """Return the pipeline, or of a bare model only what a training on a store needs of it."""
        if not self.bare:
            return self.on_device() if on_device else self.on_cpu()
        kind, whole = self.plain
        place = (self.device, self.dtype) if on_device else ("cpu", kind)
        held, makers = self.holding if on_device else whole, [one.component for one in source.makers]
        return models.load_denoiser(self.model, *place, source.spec.denoiser, held, makers, self.controlnet)

    def on_device(self) -> Any:
        return self.pipeline(self.model, self.device, self.dtype, self.call, self.holding)


def record(loader: Loader, prompts: Sequence[str], trajectory: TrajectoryConfig) -> None:
    """Tell the cost of a recording. Raises InputError where it does not fit."""
    guided(loader, prompts, trajectory)
    show_cost(recording_cost(Recorder(loader.on_device(), prompts, trajectory, **loader.call)))


def guided(loader: Loader, prompts: Sequence[str], trajectory: TrajectoryConfig) -> tuple[nn.Module, Sketch]:
    """Tell what recording needs of memory, and return the denoiser, on the CPU, and how it is called first."""
    pipe = loader.on_cpu()
    arguments = plan.guided_call(pipe, list(prompts), trajectory, loader.call)
    denoiser, call, beside = plan.first_call(pipe, arguments, trajectory.denoiser)
    try:
        need = plan.recording_memory(pipe, denoiser, call, loader.holding)
    except ModelError as error:
        ui.say(f"memory of recording: {error}")
    else:
        show_memory("recording", need, loader.place)
        plan.check_recording(need, loader.place, trajectory, loader.holding)
    return denoiser, replace(sketch_of_call(denoiser, call), beside=beside)


def training(
    loader: Loader, denoiser: nn.Module, sketch: Sketch, adapter: AdapterConfig | None, train: TrainConfig
) -> None:
    """Tell what training needs of memory. Raises InputError where it does not fit."""
    shape, config = run.adapter_config(adapter, train), settled_for(train, denoiser, loader.place, loader.holding)
    try:
        fit = plan.training_fit(denoiser, sketch, shape, config, loader.holding, loader.place)
    except ModelError as error:
        ui.say(f"memory of training: {error}")
        return
    states = f"{fit.rows} states" if fit.rows > 1 else "1 state"
    show_memory(f"training, {states} at once", fit.step, loader.place)
    show_memory("validation", fit.validation, loader.place)


def train(
    loader: Loader,
    stores: list[Path] | None,
    prompts: Sequence[str] | None,
    adapter: AdapterConfig | None,
    config: TrainConfig,
    trajectory: TrajectoryConfig,
) -> None:
    """Tell the cost of a training. Raises InputError where it does not fit."""
    if config.source == "recorded" and stores is not None:
        source = RecordedStates(open_stores(stores), config)
        parts = loader.learning(source, on_device=False)
        beside = tuple(network for _, network in bound(parts, source.makers))
        sketch = Sketch(
            spec=source.spec, states=source.batch(0), static=source.static, makers=source.makers, beside=beside
        )
        training(loader, chosen_denoiser(parts, source.spec.denoiser), sketch, adapter, config)
        pipe = loader.learning(source, on_device=True)
    elif prompts is None:
        raise InputError("training with --source online needs --conditions")
    else:
        training(loader, *guided(loader, prompts, trajectory), adapter, config)
        pipe = loader.on_device()
    made = run.open_source(pipe, stores, prompts, config, trajectory, loader.call)
    run.check_taught(run.adapter_config(adapter, config), made.trajectory)
    show_cost(training_cost(pipe, made, run.adapter_config(adapter, config), config, trajectory))


def distill(
    loader: Loader,
    prompts: Sequence[str],
    adapter: AdapterConfig | None,
    config: TrainConfig,
    trajectory: TrajectoryConfig,
) -> None:
    """Tell the cost of recording and training. Raises InputError where one of them does not fit."""
    if config.source == "online":
        train(loader, None, prompts, adapter, config, trajectory)
        return
    run.check_taught(run.adapter_config(adapter, config), trajectory)
    training(loader, *guided(loader, prompts, trajectory), adapter, config)
    pipe = loader.on_device()
    recorder = Recorder(pipe, prompts, trajectory, **loader.call)
    show_cost(recording_cost(recorder))
    source = TrialStates(recorder, config)
    show_cost(training_cost(pipe, source, run.adapter_config(adapter, config), config, trajectory))


def show_memory(what: str, need: Memory, place: str) -> None:
    """Print what a phase needs of memory."""
    ui.say(f"memory of {what}, computed: {ui.size(need.resting)} resting, {ui.size(need.peak)} at most, on {place}")


def show_cost(cost: Cost) -> None:
    """Print what a run would cost."""
    rows = [
        ("teacher passes", f"{cost.teacher_passes:,}"),
        ("student passes, forward and backward", f"{cost.student_passes:,}"),
        ("disk", ui.size(cost.store_bytes)),
        ("time, from a short trial", ui.duration(cost.seconds)),
    ]
    ui.table("This would cost", ("what", "how much"), rows)
