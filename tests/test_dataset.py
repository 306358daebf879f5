"""Batches hold the recorded rows, validation prompts are never trained on, the order depends on (seed, step) only."""

import pytest
import torch

from guidefold.config import TrajectoryConfig
from guidefold.errors import InputError, StoreError
from guidefold.trajectories.dataset import StateSet, batch_indices, batch_of_groups, epoch_order, held_out, split
from guidefold.trajectories.store import Store

CONFIG = TrajectoryConfig(trajectories=22, sampling_steps=9, keep=3, shard=4)
CONDITIONS = torch.arange(22) % 7


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A store in which every value can be computed from trajectory and step."""
    header = {"model": "m", "config": CONFIG.to_dict()}
    store = Store.create(tmp_path_factory.mktemp("store"), header=header)
    for number in range(store.shards):
        numbers = torch.tensor(store.shard_trajectories(number))
        owners, steps = numbers.repeat_interleave(3), torch.tensor([0, 3, 6]).repeat(len(numbers)) + number
        tensors = {
            "trajectory": owners,
            "step": steps,
            "latents": (100.0 * owners + steps)[:, None, None].expand(-1, 2, 5),
            "trajectory.condition": CONDITIONS[numbers],
            "trajectory.call.text": numbers[:, None].expand(-1, 6).half(),
        }
        store.write_shard(number, tensors)
    return store


def test_a_batch_holds_the_rows_asked_for_in_their_order(store):
    states = StateSet([store])
    assert len(states) == 66
    assert states.trajectories.tolist() == list(range(22))
    indices = torch.tensor([65, 0, 13, 40, 0, 2, 1])
    batch = states.batch(indices)
    assert batch.keys() == {"trajectory", "step", "latents", "condition", "call.text"}
    assert batch["trajectory"].tolist() == (indices // 3).tolist()
    assert torch.equal(batch["latents"], (100.0 * batch["trajectory"] + batch["step"])[:, None, None].expand(-1, 2, 5))
    assert torch.equal(batch["call.text"], batch["trajectory"][:, None].expand(-1, 6).half())
    assert torch.equal(batch["condition"], CONDITIONS[batch["trajectory"]])


def test_changing_a_batch_does_not_change_the_store(store):
    states = StateSet([store])
    states.batch(torch.tensor([5]))["latents"].zero_()
    assert states.batch(torch.tensor([5]))["latents"].any()
    store.verify()


def test_prompts_of_other_lengths_never_meet_in_a_batch(tmp_path):
    config = TrajectoryConfig(trajectories=9, sampling_steps=2, keep=1, shard=1)
    store = Store.create(tmp_path, header={"model": "m", "config": config.to_dict()})
    for number, length in enumerate((5, 7, 5, 5, 7, 5, 9, 5, 5)):
        text = torch.zeros(1, length, 3)
        rows = {"trajectory": torch.tensor([number]), "step": torch.tensor([0]), "trajectory.call.text": text}
        store.write_shard(number, rows | {"trajectory.condition": torch.tensor([0])})
    states = StateSet([store])
    assert [group.tolist() for group in states.groups] == [[0, 2, 3, 5, 7, 8], [1, 4], [6]]
    for epoch in range(3):
        steps = range(epoch * 5, epoch * 5 + 5)  # of at most two states: three, one and one
        batches = [states.batch(batch_of_groups(1, step, 2, states.groups))["trajectory"].tolist() for step in steps]
        assert sorted(number for batch in batches for number in batch) == list(range(9))
    again = [batch_of_groups(1, step, 2, states.groups).tolist() for step in reversed(range(5))][::-1]
    assert again == [batch_of_groups(1, step, 2, states.groups).tolist() for step in range(5)]


def test_an_incomplete_or_damaged_store_is_told(store, tmp_path):
    for path in store.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copy = Store.open(tmp_path)
    data = bytearray(copy.shard_path(2).read_bytes())
    data[-1] ^= 1
    copy.shard_path(2).write_bytes(data)
    with pytest.raises(StoreError, match="shard-00002"):
        split([copy], 3)
    copy.shard_path(2).unlink()
    with pytest.raises(StoreError, match="lacks 1 of 6 shards; run record again"):
        StateSet([copy])


@pytest.mark.parametrize("validation", [0, 1, 3, 4, 10])
def test_no_condition_is_both_trained_on_and_validated_on(store, validation):
    train, held = split([store], validation)
    assert validation <= len(held.trajectories) < validation + 4
    assert len(held) == 3 * len(held.trajectories)
    assert sorted(train.trajectories.tolist() + held.trajectories.tolist()) == list(range(22))
    assert not set(train.conditions.tolist()) & set(held.conditions.tolist())
    assert torch.equal(train.conditions, CONDITIONS[train.trajectories])
    seen = train.batch(torch.arange(len(train)))
    assert set(seen["trajectory"].tolist()) == set(train.trajectories.tolist())


def test_a_split_is_the_same_every_time_and_grows(store):
    held = [set(split([store], validation)[1].trajectories.tolist()) for validation in (3, 3, 9)]
    assert held[0] == held[1] < held[2]


def test_every_label_stays_in_training(store):
    training, held = split([store], 9, labels=True)
    assert len(held.trajectories) == 9 and not set(held.trajectories.tolist()) & set(training.trajectories.tolist())
    assert set(training.conditions.tolist()) == set(StateSet([store]).conditions.tolist())
    assert set(split([store], 3, labels=True)[1].trajectories.tolist()) < set(held.trajectories.tolist())


def test_holding_out_everything_is_refused(store):
    with pytest.raises(InputError, match="validation is 30, which holds out every recorded prompt; give at most"):
        split([store], 30)
    with pytest.raises(InputError, match="give at most 0"):
        held_out(torch.zeros(8, dtype=torch.int64), 1)
    for validation in range(23):
        try:
            assert not held_out(CONDITIONS, validation).all()
        except InputError as error:
            most = int(str(error).split()[-1])
            assert validation == most + 1
            break


@pytest.mark.parametrize(("batch_size", "size"), [(4, 10), (10, 10), (25, 10), (3, 1), (1, 5)])
def test_states_come_in_shuffled_epochs(batch_size, size):
    steps = -(-6 * size // batch_size)
    batches = [batch_indices(1, step, batch_size, size) for step in range(steps)]
    assert all(batch.shape == (batch_size,) and batch.dtype == torch.int64 for batch in batches)
    stream = torch.cat(batches)[: 6 * size].reshape(6, size)
    assert torch.equal(stream.sort(1).values, torch.arange(size).expand(6, size))


def test_a_step_depends_on_seed_and_step_only():
    forward = [batch_indices(2, step, 7, 30) for step in range(20)]
    epoch_order.cache_clear()
    backward = [batch_indices(2, step, 7, 30) for step in reversed(range(20))][::-1]
    assert all(map(torch.equal, forward, backward))
    assert not torch.equal(forward[0], batch_indices(3, 0, 7, 30))
    assert not torch.equal(batch_indices(2, 0, 30, 30), batch_indices(2, 1, 30, 30))


def test_changing_indices_does_not_change_the_next_call():
    first = batch_indices(0, 0, 10, 10)
    first.zero_()
    assert batch_indices(0, 0, 10, 10).any()


def test_no_states():
    with pytest.raises(InputError, match="no states to train on"):
        batch_indices(0, 0, 4, 0)
