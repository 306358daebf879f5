"""Several stores trained on as one: the teacher's trajectories, those that follow an adapter, other prompts, seeds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from guidefold.config import TrajectoryConfig
from guidefold.errors import StoreError
from guidefold.trajectories.headers import differences
from guidefold.trajectories.store import Store

Folders = str | Path | Sequence[str | Path]

# what decides which states are recorded, and nothing of what they mean
VISITS = ("trajectories", "sampling_steps", "keep", "record_batch", "shard", "seed", "scale_min", "scale_max", "follow")
FREE = {"follow", "conditions", "conditions_sha256", *(f"config.{name}" for name in VISITS)}


def open_stores(folders: Folders) -> list[Store]:
    """Open one store or several. Raises StoreError unless their states can be trained on together."""
    stores = [Store.open(folder) for folder in ([folders] if isinstance(folders, (str, Path)) else folders)]
    if not stores:
        raise StoreError("the list of stores is empty; give at least one")
    first, names = stores[0], {}
    for store in stores:
        for key, one, other in differences(first.header, store.header):
            if key not in FREE:
                raise StoreError(
                    f"{first.folder} was recorded with {key} = {one}, {store.folder} with {other}; "
                    "train on stores that agree in it"
                )
        if store.identity in names:
            raise StoreError(f"{names[store.identity]} and {store.folder} hold the same trajectories; give one of them")
        names[store.identity] = store.folder
    return stores


def identity_of(stores: Sequence[Store]) -> str:
    """Return what a run that trains on these stores knows them by."""
    return " ".join(store.identity[:16] for store in stores)


def drawn_of(stores: Sequence[Store]) -> TrajectoryConfig:
    """Return the settings of the first store, with the range of guidance scales of all."""
    configs = [store.config for store in stores]
    low, high = min(one.scale_min for one in configs), max(one.scale_max for one in configs)
    return replace(configs[0], scale_min=low, scale_max=high)
