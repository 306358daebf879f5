"""Metrics of an evaluation: pure functions of tensors, on any device, without models.

Sets of features are compared in float64: Fréchet distance and kernel distance are small differences of large sums.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from guidefold.errors import InputError
from guidefold.evaluation.results import Interval

Group = TypeVar("Group", bound=Hashable)

PSNR_LIMIT = 100.0  # dB; equal images would otherwise have infinitely many, which no mean and no JSON survives


def error_energies(student: Tensor, pred_guided: Tensor, pred_cond: Tensor) -> tuple[Tensor, Tensor]:
    """Return each sample's error energy with the student and without guidance, both [N] float64.

    All arguments are [N, ...]. `1 - numerator / denominator` of any sums of these is the guidance recovered.
    Raises InputError if the shapes differ.
    """
    if not student.shape == pred_guided.shape == pred_cond.shape:
        shapes = ", ".join(str(tuple(item.shape)) for item in (student, pred_guided, pred_cond))
        raise InputError(f"predictions of student, guided and conditional differ in shape: {shapes}")
    guided = pred_guided.double()
    return _energy(student.double() - guided), _energy(pred_cond.double() - guided)


def guidance_recovered(student: Tensor, pred_guided: Tensor, pred_cond: Tensor) -> float:
    """Return 1 - |student - guided|² / |cond - guided|² over everything, predictions [N, ...].

    1 is the teacher, 0 is no better than no guidance, below 0 is worse. Raises InputError if guidance changes nothing.
    """
    recovered = recovered_by(*error_energies(student, pred_guided, pred_cond), [None] * len(student))
    if not recovered:
        raise InputError("guidance changes nothing in these predictions, so there is nothing to recover")
    return recovered[None]


def recovered_by(numerator: Tensor, denominator: Tensor, groups: Sequence[Group]) -> dict[Group, float]:
    """Return the guidance recovered in each group, given the energies [N] and each sample's group.

    Groups come in order of appearance; a group in which guidance changes nothing is left out.
    Raises InputError if the lengths differ.
    """
    if not len(numerator) == len(denominator) == len(groups):
        raise InputError(f"{len(numerator)} and {len(denominator)} energies for {len(groups)} samples")
    sums: dict[Group, tuple[float, float]] = {}
    for group, above, below in zip(groups, numerator.tolist(), denominator.tolist(), strict=True):
        old_above, old_below = sums.get(group, (0.0, 0.0))
        sums[group] = (old_above + above, old_below + below)
    return {group: 1 - above / below for group, (above, below) in sums.items() if below > 0}


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to feature sets [N, D] and [M, D].

    Biased upwards when N or M is small against D: compare only equal numbers of images. Raises InputError for fewer
    than two features.
    """
    x, y = _features(x, y)
    root_x, root_y = _covariance_root(x), _covariance_root(y)
    means = (x.mean(0) - y.mean(0)).square().sum()
    # trace((Sx Sy)^½) is the sum of singular values of Rx Ry': no square root of a near-singular product is taken,
    # and with fewer images than dimensions the matrix is only [N, M].
    overlap = torch.linalg.svdvals(root_x @ root_y.mT).sum()
    distance = means + root_x.square().sum() + root_y.square().sum() - 2 * overlap
    return max(float(distance), 0.0)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Return the kernel distance (KID) of feature sets [N, D] and [M, D]: the unbiased MMD² of (x·y / D + 1)³.

    Unbiased at any number of images, so it may be slightly negative. Raises InputError for fewer than two features.
    """
    x, y = _features(x, y)

    return float(_mean_off_diagonal(_kernel(x, x)) + _mean_off_diagonal(_kernel(y, y)) - 2 * _kernel(x, y).mean())


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Return improved precision and recall (Kynkäänniemi et al. 2019) of feature sets [N, D] and [M, D].

    Precision is the part of `fake` within reach of the real set, recall the part of `real` within reach of the fake
    set; a set reaches as far from each member as its k-th neighbour. Raises InputError unless both exceed k.
    """
    real, fake = _features(real, fake)
    if min(len(real), len(fake)) <= k:
        raise InputError(f"{len(real)} and {len(fake)} features; {k} neighbours need at least {k + 1} of each")
    between = _distances(real, fake)
    precision = (between <= _reach(real, k)[:, None]).any(0).double().mean()
    recall = (between <= _reach(fake, k)).any(1).double().mean()
    return float(precision), float(recall)


def clip_score(image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """Return 100 x cosine of each image and its text [N], embeddings [N, D]; not clamped at zero."""
    return 100 * cosine_similarity(image_embeds, text_embeds, dim=-1)


def feature_distance(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 - cosine of each pair [N], features [N, D]: 0 is alike, 2 is opposite."""
    return 1 - cosine_similarity(x, y, dim=-1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Return each pair's peak signal-to-noise ratio [N] in dB, images [N, 3, H, W] in [0, 1]; at most 100."""
    each = peak_signal_noise_ratio(x, y, data_range=(0.0, 1.0), reduction="none", dim=(1, 2, 3))
    return each.clamp(max=PSNR_LIMIT)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return each pair's structural similarity [N], images [N, 3, H, W] in [0, 1] of at least 11 x 11 pixels."""
    each = structural_similarity_index_measure(x, y, data_range=(0.0, 1.0), reduction="none")
    assert isinstance(each, Tensor)  # a pair only when its contrast part is asked for
    return each.reshape(len(x))


def motion(films: Tensor) -> Tensor:
    """Return how much each film [N] changes from frame to frame: the mean difference, films [N, F, 3, H, W] in 0..1."""
    return films.diff(dim=1).abs().flatten(1).mean(1) if films.shape[1] > 1 else films.new_zeros(len(films))


def spectral_distance(x: Tensor, y: Tensor, sizes: Sequence[int] = (256, 1024)) -> Tensor:
    """Return how far each pair of sounds [N, C, T] is apart [N]: the mean difference of log spectra, in decibels.

    The windows' `sizes` are in samples, at most the sound's length; it is the mean over them.
    """
    each = []
    for size in {min(size, x.shape[-1]) for size in sizes}:
        one, two = (_decibels(sound, size) for sound in (x, y))
        each.append((one - two).abs().flatten(1).mean(1))
    return torch.stack(each).mean(0)


def share_of_distance(own: Tensor, target: Tensor, start: Tensor) -> float | None:
    """Return how far rows [N, D] are from their targets as a share of how far `start` is, the mean over rows.

    0 is the target, 1 no nearer than the start; None where the start is the target for every row.
    """
    whole = (start - target).double().norm(dim=1)
    far = whole > 0
    return float(((own - target).double().norm(dim=1)[far] / whole[far]).mean()) if far.any() else None


def bootstrap(
    statistic: Callable[..., float | Tensor], *arrays: Tensor, resamples: int = 200, seed: int = 0
) -> Interval:
    """Return `statistic(*arrays)` and its 95 % interval from resampling the rows of all arrays [N, ...] together.

    Row i of every array must belong to the same noise and prompt; what should stay fixed, such as the features of
    real images, belongs into `statistic`. The interval takes percentiles of the resamples, shifted so that their mean
    is the value. A resample repeats images, which raises distances between sets: plain percentiles of a Fréchet
    distance can lie wholly above the value, and the pivotal interval, which mirrors them, wholly below. The shift keeps
    the spread and no more, so the interval is of this metric at this number of images and says nothing of the bias
    that a finite number has; when N is near D it is rather too wide than too narrow. For means the shift is next to
    zero and these are the plain percentiles.

    `resamples=0` gives an interval without width. Raises InputError if the arrays differ in length or are empty.
    """
    if not arrays or len({len(array) for array in arrays}) != 1 or not len(arrays[0]):
        raise InputError(f"bootstrap needs rows in equal number, got {[len(array) for array in arrays]}")
    value = float(statistic(*arrays))
    if not resamples:
        return Interval(value=value, low=value, high=value)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device draws the same
    draws = torch.empty(resamples, dtype=torch.float64)
    for index in range(resamples):
        rows = torch.randint(len(arrays[0]), (len(arrays[0]),), generator=generator)
        draws[index] = float(statistic(*(array[rows.to(array.device)] for array in arrays)))
    low, high = (draws - draws.mean()).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(value=value, low=value + low, high=value + high)


def _energy(error: Tensor) -> Tensor:
    return error.square().flatten(1).sum(1) if error.ndim > 1 else error.square()


def _features(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise InputError(f"features {tuple(x.shape)} and {tuple(y.shape)}; give [N, D] and [M, D] of two rows or more")
    return x.double(), y.double()


def _covariance_root(x: Tensor) -> Tensor:
    """Return R [min(N, D), D] with R'R the covariance of `x` [N, D]."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if x.shape[0] > x.shape[1] else centred


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT / x.shape[1] + 1) ** 3


def _decibels(sound: Tensor, size: int) -> Tensor:
    """Return the loudness of each frequency over time, down to 100 dB below the loudest that 16 bits can hold."""
    window = torch.hann_window(size, device=sound.device)
    spectrum = torch.stft(
        sound.flatten(0, 1), size, max(1, size // 4), window=window, center=False, return_complex=True
    )
    return 20 * (spectrum.abs() / window.sum()).clamp(min=1e-5).log10().unflatten(0, sound.shape[:2])


def _mean_off_diagonal(square: Tensor) -> Tensor:
    return (square.sum() - square.diagonal().sum()) / (len(square) * (len(square) - 1))


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # The faster way through a matrix product rounds the distance of equal features to above zero.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _reach(x: Tensor, k: int) -> Tensor:
    return _distances(x, x).kthvalue(k + 1, dim=1).values  # the first neighbour is the feature itself
