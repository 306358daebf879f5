"""Record, train, distill: a run from pipeline to adapter, resumable at any point."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from guidefold.adapters import Adapter
from guidefold.adapters.group import AdapterGroup
from guidefold.adapters.hub import from_pretrained, start_from
from guidefold.config import AdapterConfig, Config, TrainConfig, TrajectoryConfig
from guidefold.denoiser import chosen_denoiser, denoisers
from guidefold.distillation.loop import Loop, frozen
from guidefold.distillation.states import OnlineStates, RecordedStates, Source
from guidefold.distillation.student import Student
from guidefold.errors import InputError, SeveralDenoisersError, TrainingError
from guidefold.files import make_folder, writing
from guidefold.processes import place
from guidefold.trajectories.conditions import read_conditions
from guidefold.trajectories.identity import fingerprint
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.several import Folders, open_stores
from guidefold.trajectories.store import Store
from guidefold.ui import progress

Conditions = Sequence[str] | str | Path


def as_conditions(conditions: Conditions) -> list[str]:
    """Return prompts from a list or a file, each once."""
    return read_conditions(conditions) if isinstance(conditions, (str, Path)) else list(dict.fromkeys(conditions))


def record(
    pipe: Any, conditions: Conditions, output: str | Path, config: TrajectoryConfig | None = None, **arguments: Any
) -> Store:
    """Record guided trajectories of a pipeline into a store; an interrupted recording goes on where it stopped.

    Several processes, as `torchrun` starts them, share the work, and each returns when all of it is done. `arguments`
    go to the pipeline's call, such as `height=512`. Raises InputError, ModelError or StoreError.
    """
    config = config or TrajectoryConfig()
    recorder = Recorder(pipe, as_conditions(conditions), config, **arguments)
    store = Store.create(output, header=recorder.header())
    rank, world = place()
    missing = [number for number in store.missing_shards() if number % world == rank]
    done = config.trajectories - sum(len(store.shard_trajectories(number)) for number in missing)
    with progress("Recording", config.trajectories, done) as bar:
        for number in missing:
            trajectories = store.shard_trajectories(number)
            store.write_shard(number, recorder.shard(trajectories))
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
    config, trajectory = config or TrainConfig(), trajectory or TrajectoryConfig()
    if config.tracker and find_spec(config.tracker) is None:
        raise InputError(f"tracker is {config.tracker} but it is not installed; install it, or leave tracker out")
    source = open_source(pipe, store, conditions, config, trajectory, arguments)
    denoiser = chosen_denoiser(pipe, source.spec.denoiser)
    folder = Path(output)
    torch.manual_seed(config.seed)
    student = Student(denoiser, Adapter.build(denoiser, source.spec, adapter_config(adapter, config)), source.static)
    student.adapter.check(denoiser)
    student.adapter.trained = origin(pipe, denoiser, config, source.trajectory)
    if config.init is not None:
        start_from(student.adapter, config.init)
    settings = {"adapter": student.adapter.config, "train": config, "trajectory": source.trajectory}
    claim(folder, settings, {"model": fingerprint(denoiser), "data": source.identity})
    student.adapter.attach(denoiser)
    try:
        with frozen(denoiser, gradient_checkpointing=config.gradient_checkpointing):
            if isinstance(source, OnlineStates):
                source.adapter = student.adapter
            Loop(student, source, config, folder).run()
    finally:
        student.adapter.detach()
    return from_pretrained(folder / "best")


def adapter_config(adapter: AdapterConfig | None, config: TrainConfig) -> AdapterConfig:
    """Return the settings of an adapter: as given, of the one to start from, or the default. Raises InputError."""
    return adapter or (from_pretrained(config.init).config if config.init is not None else AdapterConfig())


def open_source(
    pipe: Any,
    store: Folders | None,
    conditions: Conditions | None,
    config: TrainConfig,
    trajectory: TrajectoryConfig,
    arguments: Mapping[str, Any],
) -> Source:
    """Return where states come from, checked against the pipeline."""
    if config.source == "online":
        if conditions is None:
            raise InputError(
                "source is online but there are no conditions; give prompts, or source recorded and a store"
            )
        return OnlineStates(pipe, as_conditions(conditions), trajectory, config, **arguments)
    if arguments:
        raise InputError(f"the argument {next(iter(arguments))} is for recording; a store has been recorded already")
    if store is None:
        raise InputError("source is recorded but there is no store; record one first, or choose source online")
    stores = open_stores(store)
    stores[0].check_model(fingerprint(chosen_denoiser(pipe, stores[0].header["spec"].get("denoiser"))))
    return RecordedStates(stores, config)


def origin(pipe: Any, denoiser: Any, config: TrainConfig, trajectory: TrajectoryConfig) -> dict[str, Any]:
    """Return what an adapter says of its training."""
    name = getattr(pipe, "name_or_path", None) or getattr(denoiser, "name_or_path", None) or type(denoiser).__name__
    base = Path(str(name)).name if Path(str(name)).exists() else str(name)  # a local path is nobody else's business
    scales = {"scale_min": trajectory.scale_min, "scale_max": trajectory.scale_max}
    return {"base": base, "base_fingerprint": fingerprint(denoiser), "source": config.source, **scales}


def claim(folder: Path, settings: dict[str, Config], identities: dict[str, str]) -> None:
    """Make a folder a run's own, or find that it is this run's already.

    Raises TrainingError for another run's, and InputError for a place that cannot be written.
    """
    wanted = {name: config.to_dict() for name, config in settings.items()} | identities
    path = folder / "run.json"
    if path.exists():
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise TrainingError(f"{path} is damaged ({error}); give another output folder") from error
        for group, values in wanted.items():
            for key, value in values.items() if isinstance(values, dict) else [(group, values)]:
                before = found.get(group, {}).get(key) if isinstance(values, dict) else found.get(group)
                if before != value:
                    raise TrainingError(
                        f"{folder} holds a run with {key} {before!r}, not {value!r}; give another output folder"
                    )
        return
    if any(not is_ours(path.name) for path in make_folder(folder).iterdir()):
        raise TrainingError(f"{folder} is not empty and holds no run; give another output folder")
    partial = folder / f"run.json.{os.getpid()}.partial"  # of several processes each has its own
    with writing(path):
        partial.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def is_ours(name: str) -> bool:
    """Tell whether a file may lie where a run starts: a store made before, or what a killed process left."""
    return name == "store" or name.endswith(".partial")


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
    best/, together. `arguments` go to the pipeline's call, such as `height=512`.
    """
    config, trajectory = config or TrainConfig(), trajectory or TrajectoryConfig()
    prompts = as_conditions(conditions)
    if names := guided_denoisers(pipe, prompts, trajectory, arguments):
        group = {
            name: distill(
                pipe, prompts, Path(output) / name, adapter=adapter, trajectory=replace(trajectory, denoiser=name),
                config=config, **arguments,
            )
            for name in names
        }  # fmt: skip
        best = AdapterGroup({name: one for name, one in group.items() if isinstance(one, Adapter)})
        best.save_pretrained(Path(output) / "best")
        return best
    settings = {"adapter": adapter, "config": config, "trajectory": trajectory}
    if config.source == "online":
        return train(pipe, output, conditions=prompts, **settings, **arguments)
    store = record(pipe, prompts, Path(output) / "store", trajectory, **arguments)
    return train(pipe, output, store=store.folder, **settings)
