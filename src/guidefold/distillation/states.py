"""The two sources of states: recorded in a store, or made on the fly by the teacher; training does not care which."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

import torch

from guidefold.adapters import ConditionSpec
from guidefold.arguments import unwritten
from guidefold.capture.makers import Maker
from guidefold.config import TrainConfig, TrajectoryConfig
from guidefold.errors import InputError, StoreError
from guidefold.keeping import Adapter
from guidefold.trajectories.conditions import digest, hashed
from guidefold.trajectories.dataset import StateSet, batch_of_groups, gathered, split
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.several import drawn_of, identity_of
from guidefold.trajectories.states import States, once_for_each
from guidefold.trajectories.store import Store

SETS_KEPT = 8  # sets of online trajectories that batches are mixed from
VALIDATION_BATCH = 64


class Source(Protocol):
    """Where training gets its states from."""

    static: dict[str, Any]
    spec: ConditionSpec
    makers: tuple[Maker, ...]
    trajectory: TrajectoryConfig
    identity: str

    def batch(self, step: int) -> States:
        """Return the states of an optimizer step, a pure function of (seed, step)."""
        ...

    def validation(self) -> Iterator[States]:
        """Return states of conditions that are not trained on."""
        ...


def told_by(store: Store) -> tuple[ConditionSpec, dict[str, Any]]:
    """Return the conditions and the other arguments of the denoiser that a store was recorded from.

    Raises StoreError for a damaged index.
    """
    with damage_told(store):
        static = {name: unwritten(value) for name, value in store.header["static"].items()}
        return ConditionSpec(**store.header["spec"]), static


def makers_of(store: Store) -> tuple[Maker, ...]:
    """Return what makes those of the denoiser's inputs that a store does not hold. Raises StoreError as `told_by`."""
    with damage_told(store):
        return tuple(Maker.from_dict(one) for one in store.header.get("makers", ()))


@contextmanager
def damage_told(store: Store) -> Iterator[None]:
    """Raise StoreError in place of what reading a damaged index raises."""
    try:
        yield
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else error
        raise StoreError(f"the index of {store.folder} is damaged ({told}); record again in a new folder") from error


class RecordedStates:
    """States of one store or of several that agree, as `open_stores` makes sure."""

    def __init__(self, stores: Sequence[Store], config: TrainConfig) -> None:
        self.config, self.trajectory = config, drawn_of(stores)
        self.identity = identity_of(stores)
        self.spec, self.static = told_by(stores[0])
        self.makers = makers_of(stores[0])
        self.arguments: dict[str, Any] = stores[0].header.get("arguments", {})
        self.training, self.held_out = split(
            stores, config.validation, labels=bool(self.spec.labels) and not self.spec.tokens
        )

    def batch(self, step: int) -> States:
        size = self.config.batch_size
        return self.training.batch(batch_of_groups(self.config.seed, step, size, self.training.groups))

    def validation(self) -> Iterator[States]:
        yield from chunks(self.held_out)


def chunks(states: StateSet) -> Iterator[States]:
    """Return all states, a batch at a time."""
    for group in states.groups:
        for part in group.split(VALIDATION_BATCH):
            yield states.batch(part)


def mixed(name: str, parts: list[torch.Tensor]) -> torch.Tensor:
    """Put rows of several sets together. Raises InputError where prompts differ in length."""
    if len({part.shape[1:] for part in parts}) > 1:
        raise InputError(
            f"{name.removeprefix('call.')} has another length for other prompts; choose source recorded, and record "
            "with record_batch 1 and shard 1"
        )
    return torch.cat(parts)


class OnlineStates:
    """States of guided trajectories that the same weights make while the adapter is off; nothing is kept on disk.

    Set r holds trajectories r * record_batch and on. A step draws from the last `SETS_KEPT` sets, so what it draws is
    a pure function of (seed, step): a resumed run makes the same sets again.
    """

    def __init__(
        self,
        pipe: Any,
        conditions: Sequence[str],
        trajectory: TrajectoryConfig,
        config: TrainConfig,
        **arguments: Any,
    ) -> None:
        if trajectory.follow:
            raise InputError(f"follow is {trajectory.follow}, but source is online; record a store that follows it")
        conditions = list(dict.fromkeys(conditions))
        if config.validation >= len(conditions):
            raise InputError(
                f"validation is {config.validation} of {len(conditions)} conditions; leave some to train on"
            )
        held = sorted(conditions, key=digest)[: config.validation]  # the first that a store's would be
        kept = [one for one in conditions if one not in held]
        self.config, self.trajectory = config, trajectory
        self.recorder = Recorder(pipe, kept, trajectory, **arguments)
        self.judge = Recorder(pipe, held, trajectory, **arguments) if held else None
        self.static, self.spec, self.makers = self.recorder.static, self.recorder.spec, self.recorder.makers
        self.identity = hashlib.sha256(json.dumps(self.recorder.header(), sort_keys=True).encode()).hexdigest()[:16]
        self.adapter: Adapter | None = None
        self.make = lru_cache(maxsize=SETS_KEPT + 1)(self._make)

    def _make(self, number: int) -> States:
        """Return all states of one set of trajectories, as a store keeps them."""
        size = self.recorder.config.record_batch
        indices = range(number * size, (number + 1) * size)
        return once_for_each(self._as_teacher(self.recorder, indices, keep_all=True))

    def _as_teacher(self, recorder: Recorder, indices: Sequence[int], *, keep_all: bool) -> States:
        if self.adapter is None:
            return recorder.states(indices, keep_all=keep_all)
        with self.adapter.disabled():
            return recorder.states(indices, keep_all=keep_all)

    def batch(self, step: int) -> States:
        last = step // self.config.refresh_every
        numbers = range(max(0, last - SETS_KEPT + 1), last + 1)
        sets = [self.make(number) for number in numbers]
        counts = torch.tensor([len(one["step"]) for one in sets])
        generator = torch.Generator().manual_seed(hashed(self.config.seed, "picks", step))
        picks = torch.randint(int(counts.sum()), (self.config.batch_size,), generator=generator)
        owners = torch.bucketize(picks, counts.cumsum(0), right=True)
        rows, size = picks - (counts.cumsum(0) - counts)[owners], self.recorder.config.record_batch
        present = owners.unique().tolist()
        parts = [gathered(sets[owner], rows[owners == owner], numbers[owner] * size) for owner in present]
        back = owners.argsort(stable=True).argsort()  # from the order of sets to the order drawn
        return {name: mixed(name, [part[name] for part in parts])[back] for name in parts[0]}

    @lru_cache(maxsize=1)  # noqa: B019  the source lives as long as its run
    def _validation(self) -> list[States]:
        if self.judge is None:
            return []
        batches = self.judge.batches(range(self.config.validation))
        return [self._as_teacher(self.judge, batch, keep_all=False) for batch in batches]

    def validation(self) -> Iterator[States]:
        for states in self._validation():
            for start in range(0, len(states["step"]), VALIDATION_BATCH):
                yield {name: value[start : start + VALIDATION_BATCH] for name, value in states.items()}


class TrialStates:
    """States of one batch of a recorder's trajectories, to try what a step costs before anything is on disk."""

    def __init__(self, recorder: Recorder, config: TrainConfig) -> None:
        self.recorder, self.config, self.trajectory = recorder, config, recorder.config
        self.static, self.spec, self.identity = recorder.static, recorder.spec, "trial"
        self.makers = recorder.makers

    def batch(self, step: int) -> States:
        config = self.trajectory
        states = self.recorder.states(range(min(config.record_batch, config.trajectories)), keep_all=True)
        rows = torch.arange(self.config.batch_size) % len(states["step"])
        return {name: value[rows.to(value.device)] for name, value in states.items()}

    def validation(self) -> Iterator[States]:
        yield from ()
