"""Batches of recorded states, read through memory maps, and the order in which training sees them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from guidefold.errors import InputError, StoreError
from guidefold.trajectories.conditions import hashed
from guidefold.trajectories.store import SHARED, Store


class StateSet:
    """The states of complete stores, or of some of their trajectories.

    `trajectories` holds the trajectories' numbers, ascending; those of a second store go on where the first one's end.
    Tensors stay on disk until a batch asks for their rows.
    """

    def __init__(self, stores: Sequence[Store], *, trajectories: Tensor | None = None, verify: bool = True) -> None:
        """Map all shards; `verify` reads them to compare checksums. Raises StoreError if one is missing or damaged."""
        self._shards, self._firsts, owners, before = [], [], [], 0
        for store in stores:
            if missing := store.missing_shards():
                raise StoreError(
                    f"the store {store.folder} lacks {len(missing)} of {store.shards} shards; run record again to go on"
                )
            for number in range(store.shards):
                self._shards.append(store.read_shard(number, verify=verify))
                self._firsts.append(store.shard_trajectories(number).start)
                owners.append(self._shards[-1]["trajectory"] + before)
            before += store.config.trajectories
        # places [n, 2]: shard and row of every state; owners [n]: its trajectory
        places = torch.cat([rows_of(number, shard) for number, shard in enumerate(self._shards)])
        owners = torch.cat(owners)
        self.trajectories = owners.unique() if trajectories is None else trajectories.unique()
        self._places = places[torch.isin(owners, self.trajectories)]
        kinds = torch.tensor(alike(self._shards))[self._places[:, 0]]
        # states [n] each, whose tensors are of equal shapes
        self.groups = [torch.nonzero(kinds == kind)[:, 0] for kind in kinds.unique()]

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self._places)

    @property
    def conditions(self) -> Tensor:
        """The condition of each of `trajectories`, in their order."""
        return torch.cat([shard[f"{SHARED}condition"] for shard in self._shards])[self.trajectories]

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """Return the states at `indices` [B]; every tensor is [B, ...].

        What a trajectory's states share comes once per state and without its prefix: `trajectory.call.x` as `call.x`.
        """
        shards, rows = self._places[indices].unbind(1)
        present = shards.unique().tolist()
        parts = [gathered(self._shards[s], rows[shards == s], self._firsts[s]) for s in present]
        back = shards.argsort(stable=True).argsort()  # from the order of shards to the order asked for
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}


def alike(shards: Sequence[Mapping[str, Tensor]]) -> list[int]:
    """Return a number for each shard, the same for shards whose states can be in one batch: prompts of equal length."""
    kinds: dict[tuple, int] = {}
    numbers = []
    for shard in shards:
        shapes = {name.removeprefix(SHARED): tuple(value.shape[1:]) for name, value in shard.items()}
        numbers.append(kinds.setdefault(tuple(sorted(shapes.items())), len(kinds)))
    return numbers


def rows_of(number: int, shard: Mapping[str, Tensor]) -> Tensor:
    """Return [N, 2]: the number of a shard and the row, for each of its states."""
    rows = torch.arange(len(shard["trajectory"]))
    return torch.stack([torch.full_like(rows, number), rows], 1)


def gathered(shard: Mapping[str, Tensor], rows: Tensor, first: int) -> dict[str, Tensor]:
    """Return rows [B] of a shard whose first trajectory has the number `first`."""
    shared_rows = shard["trajectory"][rows] - first
    return {
        name.removeprefix(SHARED): tensor[shared_rows if name.startswith(SHARED) else rows]
        for name, tensor in shard.items()
    }


def split(stores: Sequence[Store], validation: int, *, labels: bool = False) -> tuple[StateSet, StateSet]:
    """Return training and validation states; no prompt is in both.

    Whole prompts are held out, in an order that depends on nothing but their text, until they have at least
    `validation` trajectories: a later round, of another seed or list, begins with the same. Of class labels, of which
    none can be learnt from others, single trajectories are held out where there are enough. Raises InputError if
    nothing would be left to train on, StoreError for a damaged store.
    """
    everything = StateSet(stores)
    spare = spares(everything.conditions) if labels else []
    if len(spare) < max(1, validation):
        held = held_out(everything.conditions, validation)
    else:
        held = torch.zeros(len(everything.conditions), dtype=torch.bool)
        held[spare[:validation]] = True
    numbers = everything.trajectories
    return (
        StateSet(stores, trajectories=numbers[~held], verify=False),
        StateSet(stores, trajectories=numbers[held], verify=False),
    )


def spares(conditions: Tensor) -> list[int]:
    """Return which of the trajectories [T] are not the first of their condition; the second ones come first."""
    counts: dict[int, int] = {}
    found = []
    for place, condition in enumerate(conditions.tolist()):
        counts[condition] = number = counts.get(condition, -1) + 1
        if number:
            found.append((number, condition, place))
    return [place for _, _, place in sorted(found)]


def held_out(conditions: Tensor, validation: int) -> Tensor:
    """Return which of the trajectories [T] with these conditions are held out. Raises InputError if all would be."""
    names, counts = conditions.unique(return_counts=True)  # ascending: a prompt's number is a hash of its text
    most = len(conditions) - int(counts[-1])
    if validation > most:
        raise InputError(f"validation is {validation}, which holds out every recorded prompt; give at most {most}")
    # Taken while the trajectories of the conditions before it do not suffice.
    before = counts.cumsum(0) - counts
    return torch.isin(conditions, names[before < validation])


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> Tensor:
    """Return the states [batch_size] of a training step: shuffled epochs, a pure function of (seed, step).

    Raises InputError if there are no states.
    """
    if size < 1:
        raise InputError("there are no states to train on; record more trajectories or hold out fewer")
    first, picked, parts = step * batch_size, 0, []
    while picked < batch_size:
        epoch, offset = divmod(first + picked, size)
        parts.append(epoch_order(seed, epoch, size)[offset : offset + batch_size - picked])
        picked += len(parts[-1])
    return torch.cat(parts)


def batch_of_groups(seed: int, step: int, batch_size: int, groups: Sequence[Tensor]) -> Tensor:
    """Return the states of a training step where only those of one group can be in a batch, a function of (seed, step).

    One group alone is taken as `batch_indices` says. Of several, each has its own epochs, and the last batch of an
    epoch may be smaller; a group comes as often as it has batches.
    """
    if len(groups) < 2:
        return batch_indices(seed, step, batch_size, sum(len(group) for group in groups))
    batches = [(kind, part) for kind, group in enumerate(groups) for part in range(-(-len(group) // batch_size))]
    epoch, place = divmod(step, len(batches))
    kind, part = batches[int(epoch_order(seed, epoch, len(batches))[place])]
    order = epoch_order(hashed(seed, "group", kind), epoch, len(groups[kind]))
    return groups[kind][order[part * batch_size : (part + 1) * batch_size]]


@lru_cache(maxsize=16)
def epoch_order(seed: int, epoch: int, size: int) -> Tensor:
    """Return the states [size] in the order of an epoch."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(hashed(seed, "epoch", epoch)))
