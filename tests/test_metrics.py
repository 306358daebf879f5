import pytest
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from guidefold.adapters import ConditionSpec
from guidefold.errors import InputError
from guidefold.evaluation import metrics
from guidefold.evaluation.predictions import time_names


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    return normal(96, 12), 1.3 * normal(96, 12, seed=1) + 0.2


class Flat(torch.nn.Module):
    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_guidance_recovered_is_one_for_the_teacher_and_zero_without_guidance():
    guided, cond = normal(4, 3, 8, 8), normal(4, 3, 8, 8, seed=1)
    assert metrics.guidance_recovered(guided, guided, cond) == 1
    assert metrics.guidance_recovered(cond, guided, cond) == 0
    assert metrics.guidance_recovered((guided + cond) / 2, guided, cond) == pytest.approx(0.75)
    assert metrics.guidance_recovered(2 * cond - guided, guided, cond) == pytest.approx(-3)


def test_guidance_recovered_needs_guidance_and_equal_shapes():
    cond = normal(4, 3)
    with pytest.raises(InputError, match="changes nothing"):
        metrics.guidance_recovered(cond, cond, cond)
    with pytest.raises(InputError, match=r"differ in shape: \(2, 3\), \(4, 3\), \(4, 3\)"):
        metrics.guidance_recovered(cond[:2], cond, cond)


def test_recovered_by_pools_energies_and_leaves_out_groups_without_guidance():
    guided, cond = normal(6, 5), normal(6, 5, seed=1)
    cond[5] = guided[5]
    student = torch.cat([guided[:2], cond[2:4], guided[4:]])
    above, below = metrics.error_energies(student, guided, cond)
    assert above.shape == below.shape == (6,)
    assert metrics.recovered_by(above, below, [2.0, 2.0, 4.0, 4.0, 6.0, 1.0]) == {2.0: 1.0, 4.0: 0.0, 6.0: 1.0}
    pooled = 1 - float(above[1:3].sum() / below[1:3].sum())
    assert metrics.recovered_by(above[1:3], below[1:3], ["a", "a"]) == {"a": pytest.approx(pooled)}
    with pytest.raises(InputError, match="6 and 6 energies for 1 samples"):
        metrics.recovered_by(above, below, ["a"])


@pytest.mark.filterwarnings("ignore:.*antialias.*")
def test_frechet_distance_agrees_with_torchmetrics(features: tuple[Tensor, Tensor]):
    x, y = features
    reference = FrechetInceptionDistance(feature=Flat(), input_img_size=(12, 1, 1)).set_dtype(torch.float64)
    reference.update(x[:, :, None, None].double(), real=True)
    reference.update(y[:, :, None, None].double(), real=False)
    assert metrics.frechet_distance(x, y) == pytest.approx(float(reference.compute()), rel=1e-6)


@pytest.mark.parametrize("count", [8, 96], ids=["fewer images than dimensions", "more"])
def test_frechet_distance_of_equal_and_moved_sets(count: int):
    x = normal(count, 12)
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(x, x + 2) == pytest.approx(12 * 4, rel=1e-6)
    assert metrics.frechet_distance(x, 2 * x) == pytest.approx(
        float(x.var(0).sum() + x.mean(0).square().sum()), rel=1e-5
    )


def test_frechet_distance_takes_sets_of_unequal_size():
    x, y = normal(40, 12), normal(9, 12, seed=1)
    assert metrics.frechet_distance(x, y) == pytest.approx(metrics.frechet_distance(y, x))


def test_kernel_distance_agrees_with_torchmetrics(features: tuple[Tensor, Tensor]):
    x, y = features
    assert metrics.kernel_distance(x, y) == pytest.approx(float(poly_mmd(x.double(), y.double())), rel=1e-9)
    assert metrics.kernel_distance(x, y[:50]) == pytest.approx(metrics.kernel_distance(y[:50], x))


def test_kernel_distance_is_unbiased():
    values = [metrics.kernel_distance(normal(24, 4, seed=i), normal(24, 4, seed=1000 + i)) for i in range(200)]
    mean, error = torch.tensor(values).mean(), torch.tensor(values).std() / 200**0.5
    assert abs(mean) < 3 * error


def test_precision_recall_of_known_sets():
    real = normal(64, 4)
    assert metrics.precision_recall(real, real) == (1, 1)
    assert metrics.precision_recall(real, real + 100) == (0, 0)
    precision, recall = metrics.precision_recall(real, real[:8] * 1e-3)  # a few pictures, all of them ordinary
    assert precision == 1
    assert recall < 0.1
    with pytest.raises(InputError, match="3 neighbours need at least 4"):
        metrics.precision_recall(real, real[:3])


@pytest.mark.parametrize("metric", [metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall])
def test_sets_must_be_matrices_of_equal_width(metric):
    with pytest.raises(InputError, match=r"give \[N, D\] and \[M, D\]"):
        metric(normal(8, 4), normal(8, 5))


def test_cosines_come_per_pair():
    x = normal(5, 8)
    assert torch.allclose(metrics.clip_score(x, 3 * x), torch.full((5,), 100.0))
    assert torch.allclose(metrics.clip_score(x, -x), torch.full((5,), -100.0))
    assert torch.allclose(metrics.feature_distance(x, x), torch.zeros(5), atol=1e-6)
    assert torch.allclose(metrics.feature_distance(x, -x), torch.full((5,), 2.0))


def test_psnr_and_ssim_come_per_image_and_stay_finite():
    image = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = torch.stack([image[0], image[1] * 0.9, 1 - image[2]])
    assert metrics.psnr(moved, image)[0] == metrics.PSNR_LIMIT
    assert metrics.psnr(moved, image)[1] == pytest.approx(
        -10 * float((0.1 * image[1]).square().mean().log10()), rel=1e-4
    )
    similar = metrics.ssim(moved, image)
    assert similar.shape == (3,)
    assert similar[0] == pytest.approx(1, abs=1e-5)
    assert 1 > similar[1] > similar[2]
    assert metrics.ssim(image[:1], image[:1]).shape == (1,)


def test_bootstrap_of_a_mean_is_the_textbook_interval():
    x = normal(400)
    interval = metrics.bootstrap(torch.mean, x, resamples=1000)
    error = 1.96 * float(x.std()) / 20
    assert interval.value == pytest.approx(float(x.mean()))
    assert interval.high - interval.value == pytest.approx(error, rel=0.15)
    assert interval.value - interval.low == pytest.approx(error, rel=0.15)


def test_bootstrap_covers_the_mean_about_95_percent_of_the_time():
    intervals = [metrics.bootstrap(torch.mean, normal(60, seed=i), resamples=200) for i in range(100)]
    assert 88 <= sum(interval.low <= 0 <= interval.high for interval in intervals) <= 100


def test_bootstrap_depends_on_its_seed_alone():
    x = normal(50)
    first = metrics.bootstrap(torch.mean, x, resamples=50, seed=1)
    torch.rand(3)
    assert metrics.bootstrap(torch.mean, x, resamples=50, seed=1) == first
    assert metrics.bootstrap(torch.mean, x, resamples=50, seed=2) != first


def test_bootstrap_keeps_a_biased_value_inside_its_interval():
    x, y = normal(48, 24), normal(48, 24, seed=1)
    interval = metrics.bootstrap(metrics.frechet_distance, x, y, resamples=30)
    assert interval.low < interval.value < interval.high


def test_bootstrap_of_a_paired_difference_is_narrower_than_of_either():
    reference, teacher = normal(80, 8, seed=1), normal(80, 8) + 0.2
    student = teacher + 0.02 * normal(80, 8, seed=2)

    def difference(a: Tensor, b: Tensor) -> float:
        return metrics.frechet_distance(a, reference) - metrics.frechet_distance(b, reference)

    paired = metrics.bootstrap(difference, student, teacher, resamples=30)
    single = metrics.bootstrap(lambda a: metrics.frechet_distance(a, reference), student, resamples=30)
    assert paired.high - paired.low < 0.3 * (single.high - single.low)
    assert metrics.bootstrap(difference, teacher, teacher, resamples=5) == metrics.Interval(value=0, low=0, high=0)


def test_bootstrap_without_resamples_has_no_width_and_rows_must_pair():
    x = normal(10)
    interval = metrics.bootstrap(torch.mean, x, resamples=0)
    assert interval.low == interval.value == interval.high
    with pytest.raises(InputError, match=r"equal number, got \[10, 9\]"):
        metrics.bootstrap(lambda a, b: 0.0, x, x[:9])


@pytest.mark.parametrize(
    ("timestep", "scale", "names"),
    [
        (torch.tensor([981, 1]), 1.0, ["981", "1"]),
        (torch.tensor([0.999, 0.4747]), 1000.0, ["999", "475"]),
        (torch.tensor([[0.0, 0.25], [0.5, 0.1]]), 1000.0, ["250", "500"]),
    ],
)
def test_states_are_told_apart_by_timestep_in_any_unit(timestep, scale, names):
    spec = ConditionSpec(tokens={}, vectors={}, labels={}, timestep="t", timestep_scale=scale)
    assert time_names({"call.t": timestep}, spec) == names
