"""Record, train, distill: a run from pipeline to adapter, resumable at any point."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from guidefold.acting.arguments import shaped
from guidefold.acting.fitting import check
from guidefold.adapters import ConditionSpec
from guidefold.capture.makers import bound
from guidefold.config import AdapterConfig, Config, TrainConfig, TrajectoryConfig
from guidefold.denoiser import chosen_denoiser, denoisers
from guidefold.distillation.folder import alone_in, claim, is_own
from guidefold.distillation.freezing import frozen, settled
from guidefold.distillation.loop import Loop
from guidefold.distillation.opening import open_source
from guidefold.distillation.states import OnlineStates, RecordedStates, Source
from guidefold.distillation.student import Student
from guidefold.errors import InputError, SeveralDenoisersError
from guidefold.files import named
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import from_pretrained, start_from
from guidefold.memory import memory_told
from guidefold.processes import place
from guidefold.room import forked
from guidefold.trajectories.additions import added_to
from guidefold.trajectories.conditions import draw
from guidefold.trajectories.dataset import held_out
from guidefold.trajectories.identity import fingerprint, plain
from guidefold.trajectories.prompts import Conditions, as_conditions
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.several import Folders, drawn_of, identity_of
from guidefold.trajectories.store import Store
from guidefold.ui import progress

FEWER = "give --offload model, or a smaller record_batch and another folder; the shards before are kept"


def record(
    pipe: Any, conditions: Conditions, output: str | Path, config: TrajectoryConfig | None = None, **arguments: Any
) -> Store:
    """Record guided trajectories of a pipeline into a store; an interrupted recording goes on where it stopped.

    Several processes, as `torchrun` starts them, share the work, and each returns when all of it is done. `arguments`
    go to the pipeline's call, such as `height=512, width=512`. Raises InputError, ModelError or StoreError.
    """
    return recorded(Recorder(pipe, as_conditions(conditions), config or TrajectoryConfig(), **arguments), output)


def recorded(recorder: Recorder, output: str | Path) -> Store:
    """Return the complete store of a recorder, after making what is missing of it."""
    rank, world = place()
    store, config = Store.create(output, header=recorder.header()), recorder.config
    store.check_shards()
    missing = [number for number in store.missing_shards() if number % world == rank]
    done = config.trajectories - sum(len(store.shard_trajectories(number)) for number in missing)
    with progress("Recording", config.trajectories, done) as bar:
        for number in missing:
            trajectories = store.shard_trajectories(number)
            with memory_told(FEWER):
                states = recorder.shard(trajectories)
            store.write_shard(number, states)
            bar.advance(len(trajectories))
        while world > 1 and not store.complete:
            time.sleep(1)
    return store


def train(
    pipe: Any,
    output: str | Path,
    *,
    store: Folders | None = None,
    conditions: Conditions | None = None,
    adapter: AdapterConfig | None = None,
    config: TrainConfig | None = None,
    trajectory: TrajectoryConfig | None = None,
    **arguments: Any,
) -> Adapter:
    """Train an adapter on stores (`source="recorded"`) or on trajectories made on the fly (`source="online"`).

    `store` is one or several that agree in all but what decides which states they hold. Returns the best adapter, not
    attached; `output` holds best/, last/, log.jsonl and the checkpoint that the same call resumes from. The pipeline is
    left as it was. Without `adapter` the new one has the shape of `config.init`, or the default. `arguments` go to the
    pipeline's call where trajectories are made on the fly. Raises InputError, ModelError, StoreError or TrainingError.
    """
    config, trajectory, folder = config or TrainConfig(), trajectory or TrajectoryConfig(), named(output)
    check_tracker(config)
    source = open_source(pipe, store, conditions, config, trajectory, arguments)
    denoiser = chosen_denoiser(pipe, source.spec.denoiser)
    how = settled(config, denoiser)
    made = new_adapter(denoiser, source.spec, adapter, config, source.trajectory)
    student = Student(denoiser, made, source.static, bound(pipe, source.makers))
    told = origin(pipe, denoiser, config, source.trajectory) | shaped_by(pipe, source, arguments)
    student.adapter.trained = told | student.adapter.trained
    claim(folder, told_of(student.adapter, denoiser, config, source.trajectory, source.identity))
    with alone_in(folder):
        student.adapter.attach(denoiser)
        try:
            checkpointing = bool(how.gradient_checkpointing)
            with frozen(denoiser, gradient_checkpointing=checkpointing, compile=how.compile):
                if isinstance(source, OnlineStates):
                    source.adapter = student.adapter
                Loop(student, source, how, folder).run()
        finally:
            student.adapter.detach()
        return from_pretrained(folder / "best")


def check_tracker(config: TrainConfig) -> None:
    """Raise InputError for a tracker that is not installed."""
    if config.tracker and find_spec(config.tracker) is None:
        raise InputError(f"tracker is {config.tracker} but it is not installed; install it, or leave tracker out")


def check_run(recorder: Recorder, output: Path, adapter: AdapterConfig | None, config: TrainConfig) -> None:
    """Raise what recording and then training in this folder would raise of their settings, and change nothing."""
    check_tracker(config)
    store = Store.planned(output / "store", header=recorder.header())
    numbers = range(recorder.config.trajectories)
    drawn = [draw(recorder.config, recorder.conditions, number).condition for number in numbers]
    held_out(torch.tensor(drawn), config.validation)
    denoiser = chosen_denoiser(recorder.pipe, recorder.spec.denoiser)
    settled(config, denoiser)
    with forked(denoiser):
        made = new_adapter(denoiser, recorder.spec, adapter, config, recorder.config)
    is_own(output, told_of(made, denoiser, config, drawn_of([store]), identity_of([store])))


def new_adapter(
    denoiser: nn.Module,
    spec: ConditionSpec,
    adapter: AdapterConfig | None,
    config: TrainConfig,
    trajectory: TrajectoryConfig,
) -> Adapter:
    """Return the adapter that a run starts with. Raises InputError or ModelError where it does not fit."""
    torch.manual_seed(config.seed)
    settings = adapter_config(adapter, config)
    check_taught(settings, trajectory)
    with memory_told(f"give less than rank {settings.rank} and width {settings.width}"):
        made = Adapter.build(denoiser, spec, settings)
    check(made, denoiser)
    if config.init is not None:
        start_from(made, config.init)
    return made


def check_taught(adapter: AdapterConfig, trajectory: TrajectoryConfig) -> None:
    """Raise InputError where a plain LoRA is to learn what depends on more than it sees, which is nothing."""
    if adapter.design != "lora":
        return
    low, high = trajectory.scale_min, trajectory.scale_max
    if low != high:
        raise InputError(
            f"a plain LoRA is of one guidance scale, and these are {low:g} to {high:g}; give scale_min and scale_max "
            "alike, such as 5, or another design"
        )
    if trajectory.negatives or any(low != high for low, high in trajectory.dial_ranges().values()):
        raise InputError("a plain LoRA sees neither negative prompts nor further scales; leave them out, or give film")


def adapter_config(adapter: AdapterConfig | None, config: TrainConfig) -> AdapterConfig:
    """Return the settings of an adapter: as given, of the one to start from, or the default. Raises InputError."""
    return adapter or (from_pretrained(config.init).config if config.init is not None else AdapterConfig())


def origin(pipe: Any, denoiser: Any, config: TrainConfig, trajectory: TrajectoryConfig) -> dict[str, Any]:
    """Return what an adapter says of its training."""
    name = getattr(pipe, "name_or_path", None) or getattr(denoiser, "name_or_path", None) or type(denoiser).__name__
    base = Path(str(name)).name if Path(str(name)).exists() else str(name)  # a local path is nobody else's business
    scales = {"scale_min": trajectory.scale_min, "scale_max": trajectory.scale_max}
    return {"base": base, "base_fingerprint": fingerprint(denoiser), "source": config.source, **scales}


def shaped_by(pipe: Any, source: Source, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what guidance was shaped by, besides the dials, where it was recorded."""
    if isinstance(source, RecordedStates):
        arguments = source.arguments
    found = shaped(pipe, arguments, source.spec.offs) if callable(pipe) and not isinstance(pipe, nn.Module) else {}
    return {"arguments": found} if found else {}


def told_of(
    adapter: Adapter, denoiser: nn.Module, config: TrainConfig, trajectory: TrajectoryConfig, data: str
) -> dict[str, Any]:
    """Return what run.json says of a run."""
    settings: dict[str, Config] = {"adapter": adapter.config, "train": config, "trajectory": trajectory}
    told = {name: values.to_dict() for name, values in settings.items()}
    added = json.dumps(plain(added_to(denoiser)), sort_keys=True)
    return told | {"model": fingerprint(denoiser), "data": data} | ({"added": added} if added != "{}" else {})


def guided_denoisers(
    pipe: Any, conditions: Sequence[str], config: TrajectoryConfig, arguments: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the components that guidance runs, where there are several and the settings name none."""
    if config.denoiser is None and len(denoisers(pipe)) > 1:
        try:
            Recorder(pipe, conditions, config, **arguments)
        except SeveralDenoisersError as error:
            return error.names
    return ()


def distill(
    pipe: Any,
    conditions: Conditions,
    output: str | Path,
    *,
    adapter: AdapterConfig | None = None,
    trajectory: TrajectoryConfig | None = None,
    config: TrainConfig | None = None,
    **arguments: Any,
) -> Adapter | AdapterGroup:
    """Record if the source is recorded, then train; the same call resumes. Returns the best adapter.

    Where guidance runs several denoisers and none is named, each gets an adapter; they are returned, and saved in
    best/, together. `arguments` go to the pipeline's call, such as `height=512, width=512`. What the settings tell to
    be wrong is raised before anything is recorded: InputError, ModelError, StoreError or TrainingError.
    """
    config, trajectory, output = config or TrainConfig(), trajectory or TrajectoryConfig(), named(output)
    prompts = as_conditions(conditions)
    names = guided_denoisers(pipe, prompts, trajectory, arguments)
    runs = {output / name: replace(trajectory, denoiser=name) for name in names} or {output: trajectory}
    if config.source == "online":
        more = {"conditions": prompts, "adapter": adapter, "config": config, **arguments}
        made = [train(pipe, folder, trajectory=one, **more) for folder, one in runs.items()]
    else:
        recorders = {folder: Recorder(pipe, prompts, one, **arguments) for folder, one in runs.items()}
        for folder, recorder in recorders.items():
            check_run(recorder, folder, adapter, config)
        made = [
            train(pipe, folder, store=recorded(recorder, folder / "store").folder, adapter=adapter, config=config)
            for folder, recorder in recorders.items()
        ]
    if not names:
        return made[0]
    best = AdapterGroup(dict(zip(names, made, strict=True)))
    best.save_pretrained(output / "best")
    return best
