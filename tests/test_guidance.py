"""One scale per image, where a pipeline takes a number: arithmetic is each image's own."""

import pytest
import torch
from zoo import message_of

from guidefold.errors import ModelError
from guidefold.guidance import PerImageScale

SCALES = [1.7, 7.3, 0.1]
SUMS = [
    lambda g: 1 - g,
    lambda g: g - 1,
    lambda g: 2 + g,
    lambda g: g + 2,
    lambda g: -3 * g,
    lambda g: g * 0.5 * (1 - g),
    lambda g: g + g - 2.0 * g * g,
]


@pytest.mark.parametrize("act", SUMS)
def test_arithmetic_with_numbers_is_each_images_own(act):
    made = act(PerImageScale(SCALES))
    assert isinstance(made, PerImageScale)
    assert made.scales == [act(scale) for scale in SCALES] and float(made) == max(made.scales)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_products_with_tensors_are_a_plain_numbers_bit_for_bit(dtype):
    rows = (9 * torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0))).to(dtype)
    for act in (lambda g: g * rows, lambda g: (1 - g) * rows):
        made, alone = act(PerImageScale(SCALES)), [act(scale) for scale in SCALES]
        assert all(torch.equal(made[row], one[row]) and made.dtype == one.dtype for row, one in enumerate(alone))


def test_sums_with_tensors_are_each_images_own():
    rows = torch.ones(3, 2)
    for act in (lambda g: g + rows, lambda g: g - rows):
        assert torch.equal(act(PerImageScale(SCALES)), torch.stack([act(s)[0] for s in SCALES]))


def test_a_tensor_without_a_row_per_image_is_refused():
    told = message_of(ModelError, lambda: PerImageScale(SCALES) * torch.ones(2, 4))
    assert "does not go along with one scale per image; set record_batch to 1" in told
    assert torch.equal(PerImageScale([3.0]) * torch.ones(2, 4), torch.full((2, 4), 3.0))
