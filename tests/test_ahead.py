"""Modulations worked out for steps to come: fewer products, the same pictures."""

import pytest
import torch
from sampling import FILM, assert_close
from test_composition import build as observed
from test_composition import of
from test_composition import sample as sample_case
from zoo import shake

from guidefold.acting import ahead

STEPS = 6


@pytest.mark.filterwarnings("ignore:this adapter was trained without negative prompts")
@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "QwenImagePipeline", "DiTPipeline"])
def test_a_run_works_out_its_steps_together_and_gives_what_each_alone_would(name, monkeypatch):
    make = of(name, num_inference_steps=STEPS)
    (adapter, _), case = observed(make, **FILM), make()
    shake(adapter)
    adapter.attach(case.pipe)
    worked: list[int] = []
    adapter.encoder.mix.register_forward_hook(lambda _, args, __: worked.append(len(args[0])))
    found = {}
    for room in (0, 2, 100):  # how many steps ahead there is room for
        worked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ahead, "NUMBERS", room * adapter.film.head.out_features)
            found[room] = sample_case(case)
        # the first step alone: whether the prompt stays is not known yet
        assert worked == {0: [1] * STEPS, 2: [1, 2, 2, 1], 100: [1, STEPS - 1]}[room]
    assert_close(found[2], found[0])
    assert_close(found[100], found[0])


def test_a_place_is_found_by_number_and_never_guessed():
    times = torch.tensor([900, 500, 100])
    assert ahead.place_of(torch.tensor(500), times) == 1
    assert ahead.place_of(torch.tensor([0.5]), times / 1000) == 1
    assert ahead.place_of(torch.tensor(501), times) is None
    assert ahead.place_of(torch.tensor([500, 500]), times) is None
    assert ahead.place_of(torch.tensor(500, device="meta"), times) is None
    assert ahead.timesteps_of(object()) is None
