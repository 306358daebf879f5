"""The loss is a share of guidance, to which every state adds alike."""

import pytest
import torch

from guidefold.distillation.losses import guidance_loss, guidance_weights


@pytest.fixture
def states():
    """Return pred_cond and pred_guided [4, 3, 2, 2], whose guidance is 900 times apart in energy."""
    generator = torch.Generator().manual_seed(0)
    pred_cond, unit = torch.randn(2, 4, 3, 2, 2, generator=generator).unbind(0)
    sizes = torch.tensor([1.0, 3.0, 10.0, 30.0]).reshape(4, 1, 1, 1)
    return pred_cond, pred_cond + sizes * unit / unit.flatten(1).norm(dim=1).reshape(4, 1, 1, 1)


def weights(pred_cond, pred_guided):
    return guidance_weights((pred_cond - pred_guided).square().flatten(1).sum(1))


def loss(prediction, pred_cond, pred_guided):
    return float(guidance_loss(prediction, pred_guided, weights(pred_cond, pred_guided)))


def test_it_is_one_for_the_bare_model_and_zero_for_a_perfect_one(states):
    pred_cond, pred_guided = states
    assert loss(pred_cond, *states) == pytest.approx(1)
    assert loss((pred_cond + pred_guided) / 2, *states) == pytest.approx(0.25)
    assert loss(pred_guided, *states) == 0


def test_what_is_missed_of_a_small_guidance_is_not_drowned_by_a_large_one(states):
    pred_cond, pred_guided = states
    missed = []
    for row in range(4):
        prediction = pred_guided.clone()
        prediction[row] = pred_cond[row]
        missed.append(loss(prediction, *states))
    assert sum(missed) == pytest.approx(1)
    assert missed[1] > missed[3] / 4  # a hundredth of its energy
    assert missed == sorted(missed)


def test_a_state_without_guidance_keeps_its_weight_finite(states):
    pred_cond, pred_guided = states
    pred_guided = torch.cat([pred_cond[:1], pred_guided[1:]])
    assert torch.isfinite(weights(pred_cond, pred_guided)).all()
    assert torch.isfinite(weights(pred_cond, pred_cond)).all()
    assert loss(pred_cond, pred_cond, pred_guided) == pytest.approx(1)


def test_losses_of_parts_of_a_batch_add_up_to_its_own(states):
    pred_cond, pred_guided = states
    weight = weights(pred_cond, pred_guided)
    parts = [guidance_loss(pred_cond[i::2] * 0.5, pred_guided[i::2], weight[i::2]) for i in range(2)]
    assert float(sum(parts)) == pytest.approx(float(guidance_loss(pred_cond * 0.5, pred_guided, weight)))
