"""A folder of recorded states: `index.json` says what was recorded, `shard-00000.safetensors` and so on hold it.

A *state* is what the student sees at one step of a trajectory. Shard n holds the states of trajectories
n * shard ... (n + 1) * shard - 1 as one flat dict of stacked tensors:

- `name` [N, ...]: one row per state of the shard; always there: `trajectory` [N], the number of its trajectory.
- `trajectory.name` [T, ...]: one row per trajectory of the shard, in order, for what all its states share, such as text
  embeddings; always there: `trajectory.condition` [T], the number of its prompt, which is a hash of its text.

A shard is absent or complete, so the folder is its own record of progress, and any number of processes may write
different shards at the same time.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from guidefold.config import TrajectoryConfig
from guidefold.errors import InputError, StoreError
from guidefold.trajectories.headers import brief, check_header, check_same, differences

FORMAT = 3
REMAKING = 4  # where some inputs of the denoiser are made again, which readers of format 3 would leave out
INDEX = "index.json"
PARTIAL = ".guidefold-partial"
SHARED = "trajectory."
RECORD = "guidefold"
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Store:
    """Recorded trajectories; make one with `create` or `open`."""

    folder: Path
    header: dict[str, Any]

    @classmethod
    def planned(cls, folder: str | Path, *, header: Mapping[str, Any]) -> Self:
        """Return the store that `create` would start or go on with, and touch nothing. Raises as `create` does."""
        version = REMAKING if header.get("makers") else FORMAT
        store = cls(folder=Path(folder), header=json.loads(json.dumps({**header, "format": version})))
        check_header(store.header)
        try:
            names = {path.name for path in store.folder.iterdir()}
        except FileNotFoundError:
            names = set()
        except OSError as error:
            raise StoreError(f"cannot make a store in {folder}: {error.strerror}; choose another folder") from error
        if INDEX in names:
            check_same(cls.open(folder).header, store.header, store.folder)
        elif foreign := sorted(name for name in names if not name.endswith(PARTIAL)):
            raise StoreError(f"{folder} is no store but holds {foreign[0]!r}; choose a new or empty folder")
        return store

    @classmethod
    def create(cls, folder: str | Path, *, header: Mapping[str, Any]) -> Self:
        """Start a store, or go on with one of the same header.

        The header is JSON with at least `config` (TrajectoryConfig.to_dict()) and `model` (its fingerprint). Raises
        StoreError for a store of another header and for a folder that holds anything else.
        """
        store = cls.planned(folder, header=header)
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make a store in {folder}: {error.strerror}; choose another folder") from error
        if not (store.folder / INDEX).exists():
            write_whole(store.folder / INDEX, json.dumps(store.header, indent=1, sort_keys=True).encode())
        for leftover in store.folder.glob(f"*{PARTIAL}"):
            with suppress(OSError):
                leftover.unlink()
        return store

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a store. Raises StoreError if there is none, or it is damaged or of another format."""
        path = Path(folder) / INDEX
        try:
            header = json.loads(path.read_text(encoding="utf-8"))
            version = header["format"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"there is no store in {folder}; make one with record") from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(f"{path} is damaged ({brief(repr(error))}); record again in a new folder") from error
        if version not in (FORMAT, REMAKING):
            raise StoreError(
                f"the store {folder} has format {version!r}, this guidefold reads format {FORMAT} or {REMAKING}; "
                "record again in a new folder, or use the guidefold that made it"
            )
        try:
            check_header(header)
        except InputError as error:
            raise StoreError(f"{path} is damaged ({error}); record again in a new folder") from error
        return cls(folder=Path(folder), header=header)

    @cached_property
    def config(self) -> TrajectoryConfig:
        return TrajectoryConfig.from_dict(self.header["config"])

    @cached_property
    def identity(self) -> str:
        """The sha256 of the header, which each shard carries: shards of two stores cannot be mixed up."""
        return hashlib.sha256(json.dumps(self.header, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> int:
        """The number of shards of the complete store."""
        return -(-self.config.trajectories // self.config.shard)

    @property
    def complete(self) -> bool:
        return not self.missing_shards()

    def shard_path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def shard_trajectories(self, number: int) -> range:
        """Return the numbers of the trajectories of a shard. Raises InputError if there is no such shard."""
        if not 0 <= number < self.shards:
            raise InputError(f"the store {self.folder} has no shard {number}; choose from 0 to {self.shards - 1}")
        first = number * self.config.shard
        return range(first, min(first + self.config.shard, self.config.trajectories))

    def missing_shards(self) -> list[int]:
        """Return the numbers of the shards that are still to be recorded, ascending."""
        present = {path.name for path in self.folder.iterdir() if path.is_file()}  # a link to nothing is none
        return [number for number in range(self.shards) if self.shard_path(number).name not in present]

    def check_model(self, fingerprint: str) -> None:
        """Raise StoreError unless the store was recorded from this model."""
        if self.header["model"] != fingerprint:
            raise StoreError(
                f"the store {self.folder} was recorded from model {self.header['model']}, not from {fingerprint}; "
                "load that model, or record this one in a new folder"
            )

    def check_other(self, component: str, fingerprint: str) -> None:
        """Raise StoreError unless the store was recorded with this component beside the denoiser, as a ControlNet."""
        stored = self.header.get("others", {}).get(component)
        if stored != fingerprint:
            raise StoreError(
                f"the store {self.folder} was recorded with the {component} {stored}, not with {fingerprint}; "
                "load that one, or record with this one in a new folder"
            )

    def check_added(self, added: Mapping[str, Any], component: str | None = None) -> None:
        """Raise StoreError unless what is added to the denoiser, such as LoRAs, is what it was recorded with.

        So for another component where one is named.
        """
        stored = self.header.get("added", {}).get(component or self.header.get("denoiser"), {})
        for key, old, new in differences(stored, dict(added)):
            raise StoreError(
                f"the store {self.folder} was recorded from a model with {key} = {old}, now it has {key} = {new}; "
                "set it as it was, or record this one in a new folder"
            )

    def write_shard(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a shard in one piece: it is there completely or not at all.

        Raises InputError for tensors that are not laid out as the head of this file says, and StoreError if the disk
        is full or fails.
        """
        check_layout(tensors, self.shard_trajectories(number))
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        # One metadata entry only: safetensors writes several in an order that differs from run to run.
        record = json.dumps(self.describe(number, plain), sort_keys=True)
        write_whole(self.shard_path(number), save(plain, metadata={RECORD: record}))

    def read_shard(self, number: int, *, verify: bool = True) -> dict[str, Tensor]:
        """Return the tensors of a shard, memory-mapped; `verify` reads all of them to compare checksums.

        Raises StoreError if the shard is missing, truncated, altered or of another store.
        """
        with self.opened(number) as (file, record):
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if verify and record != self.describe(number, tensors):
                raise ValueError("its checksum does not fit")
        return tensors

    @contextmanager
    def opened(self, number: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Open a shard of this store and number, and what it says of itself. Raises StoreError as `read_shard` does."""
        path = self.shard_path(number)
        if not path.is_file():
            raise StoreError(f"{path} is missing; run record again to complete the store")
        try:
            with safe_open(path, "pt") as file:
                record = json.loads(file.metadata()[RECORD])
                if (record["store"], record["shard"]) != (self.identity, number):
                    raise ValueError("it is another one")
                yield file, record
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreError(
                f"{path} is truncated, altered or of another store; delete it and run record again"
            ) from error

    def check_shards(self) -> None:
        """Raise StoreError, as reading would, for a shard that is cut off or another one; its data are not read."""
        for number in sorted(set(range(self.shards)) - set(self.missing_shards())):
            with self.opened(number):
                pass

    def verify(self) -> None:
        """Raise StoreError unless every shard is there and unaltered."""
        for number in range(self.shards):
            self.read_shard(number)

    def describe(self, number: int, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what a shard says of itself."""
        states = len(tensors["trajectory"])
        return {"store": self.identity, "shard": number, "states": states, "sha256": checksum(tensors)}


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_layout(tensors: Mapping[str, Tensor], trajectories: range) -> None:
    """Raise InputError unless `tensors` has equal rows per state, and a row for each of `trajectories`."""
    if lacking := {"trajectory", f"{SHARED}condition"} - tensors.keys():
        raise InputError(f"a shard lacks {min(lacking)!r}; it says which rows belong together")
    numbers = tensors["trajectory"]
    for name, tensor in tensors.items():
        rows = len(trajectories) if name.startswith(SHARED) else len(numbers)
        if tensor.ndim == 0 or len(tensor) != rows:
            raise InputError(f"{name!r} of a shard has shape {list(tensor.shape)}; give it {rows} rows")
        if name.startswith(SHARED) and name.removeprefix(SHARED) in tensors:
            raise InputError(f"a shard has both {name!r} and {name.removeprefix(SHARED)!r}; give one of them")
    if set(numbers.tolist()) != set(trajectories):
        raise InputError(
            f"a shard needs states of trajectories {trajectories[0]} to {trajectories[-1]}, and of no other"
        )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there completely or not at all. Raises StoreError if the disk is full or fails."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            write_once(path, data)
            return
        except OSError as error:
            # A process that starts meanwhile takes our partial file for a leftover and removes it: write it again.
            if isinstance(error, FileNotFoundError) and attempt < ATTEMPTS:
                continue
            raise StoreError(
                f"cannot write {path.name}, {len(data) / 1e6:.1f} MB, to {path.parent}: {error.strerror}; "
                "finished shards are kept: make room and run the same command again"
            ) from error


def write_once(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, wait for the disk and move it into place. Raises OSError, leaving nothing behind."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
