"""Several stores are one: their states together, prompts held out of all of them, and no mixing of what disagrees."""

from dataclasses import replace

import pytest
import torch
from runs import DRAWN, PROMPTS, SHAPE, rows, settings
from zoo import message_of, pipeline

from guidefold.distillation.run import record, train
from guidefold.distillation.states import OnlineStates
from guidefold.errors import InputError, StoreError
from guidefold.trajectories.conditions import digest
from guidefold.trajectories.dataset import StateSet, split
from guidefold.trajectories.several import drawn_of, open_stores

OTHER = replace(DRAWN, trajectories=6, keep=3, shard=3, record_batch=3, seed=5, scale_min=3.0, scale_max=9.0)


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def stores(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return [record(pipe, PROMPTS, folder / name, config) for name, config in (("one", DRAWN), ("other", OTHER))]


def test_states_are_those_of_all(stores):
    together, apart = StateSet(stores), [StateSet([store]) for store in stores]
    assert len(together) == sum(map(len, apart)) == 8 * 2 + 6 * 3
    assert together.trajectories.tolist() == list(range(14))
    assert together.conditions.tolist() == [*apart[0].conditions.tolist(), *apart[1].conditions.tolist()]
    batch = together.batch(torch.arange(len(together)))
    for name, value in batch.items():
        parts = [one.batch(torch.arange(len(one)))[name] for one in apart]
        assert torch.equal(value, torch.cat(parts)), name


def test_no_prompt_is_trained_on_in_one_store_and_held_out_of_another(stores):
    training, held = split(stores, 3)
    assert len(held.trajectories) >= 3 and len(training) + len(held) == 34
    assert not set(training.conditions.tolist()) & set(held.conditions.tolist())
    seen = training.batch(torch.arange(len(training)))["condition"]
    assert not set(seen.tolist()) & set(held.conditions.tolist())


def test_prompts_are_known_again_in_another_list(pipe, stores, tmp_path):
    prompts = ["something new", *reversed(PROMPTS[:3])]
    other = record(pipe, prompts, tmp_path / "prompts", replace(DRAWN, trajectories=8, keep=1))
    alone, both = StateSet([other]), [stores[0], other]
    assert len(set(alone.conditions.tolist()) - set(StateSet(stores).conditions.tolist())) == 1
    for validation in range(1, 14):
        training, held = split(both, validation)
        assert len(training.trajectories) + len(held.trajectories) == 16
        assert not set(training.conditions.tolist()) & set(held.conditions.tolist())


def test_training_goes_over_all_and_one_in_a_list_is_one(pipe, stores, tmp_path):
    one, other = (store.folder for store in stores)

    def run(name, store, **changes):
        return train(pipe, tmp_path / name, store=store, adapter=SHAPE, config=settings(**changes))

    both = run("both", [one, other])
    assert (both.trained["scale_min"], both.trained["scale_max"]) == (DRAWN.scale_min, 9.0)
    run("alone", one), run("list", [one])
    assert rows(tmp_path / "alone") == rows(tmp_path / "list") != rows(tmp_path / "both")
    before = rows(tmp_path / "both")
    run("both", [one, other])  # is over, and stays as it was
    assert rows(tmp_path / "both") == before


def test_what_does_not_agree_is_told(pipe, stores, tmp_path):
    one = stores[0].folder
    assert "hold the same trajectories; give one of them" in message_of(StoreError, lambda: open_stores([one, one]))
    assert "the list of stores is empty" in message_of(StoreError, lambda: open_stores([]))
    assert "there is no store in" in message_of(StoreError, lambda: open_stores([one, tmp_path / "none"]))
    prompts = [f"a {word} of many" for word in "abcdefghijklmnopqrstuvwxyz"]
    config = replace(DRAWN, trajectories=1, negatives=tuple(prompts))
    other = record(pipe, PROMPTS, tmp_path / "negatives", config).folder
    told = message_of(StoreError, lambda: open_stores([one, other]))
    assert "was recorded with config.negatives = None" in told and "train on stores that agree in it" in told
    assert "... (" in told and len(told) < 500
    too_many = settings(validation=14)
    told = message_of(InputError, lambda: train(pipe, tmp_path / "run", store=[one, stores[1].folder], config=too_many))
    assert "holds out every recorded prompt" in told and not (tmp_path / "run").exists()


def test_scales_are_those_of_all(stores):
    assert drawn_of(stores[:1]) == DRAWN
    assert drawn_of(stores[::-1]) == replace(OTHER, scale_min=DRAWN.scale_min)


def test_what_one_round_holds_out_no_round_trains_on(pipe, stores, tmp_path):
    first = split(stores[:1], 2)[1].conditions
    again = record(pipe, PROMPTS[::-1] * 2, tmp_path / "again", replace(DRAWN, seed=7, trajectories=6, keep=1))
    assert len(StateSet([again]).conditions.unique()) == 6 and again.header["conditions"] == 6
    held = {digest(prompt) for prompt in OnlineStates(pipe, PROMPTS * 2, DRAWN, settings(seed=3)).judge.conditions}
    one = {digest(prompt) for prompt in OnlineStates(pipe, PROMPTS[::-1], DRAWN, settings(seed=4)).judge.conditions}
    assert held == one == set(split([again], 2)[1].conditions.tolist()) and set(first.tolist()) <= held
