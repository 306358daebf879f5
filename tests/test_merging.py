"""The mean of adapters: its weights are their means, and only what is alike is merged."""

import pytest
import torch
from sampling import build, sample
from zoo import message_of, pipeline, shake

from guidefold import cli, merge
from guidefold.errors import InputError, ModelError
from guidefold.keeping import Adapter


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


@pytest.fixture
def saved(pipe, tmp_path):
    """Return a function that saves an adapter of its own weights."""

    def save(name: str, *, seed: int = 0, trained: dict | None = None, **changes) -> str:
        adapter = build(pipe, **changes)
        shake(adapter, seed=seed)
        adapter.trained = {"base": "me/base", "base_fingerprint": "f", "scale_min": 1.5, "scale_max": 9.0, "steps": 10}
        adapter.trained |= trained or {}
        return str(adapter.save_pretrained(tmp_path / name))

    return save


def weights(source) -> dict[str, torch.Tensor]:
    return (Adapter.from_pretrained(source) if isinstance(source, str) else source).state_dict()


def test_weights_are_means(saved):
    folders = [saved("a", seed=1), saved("b", seed=2), saved("c", seed=3)]
    a, b, c = map(weights, folders)
    even, uneven = weights(merge(folders)), weights(merge(folders, [1, 2, 5]))
    for name in a:
        assert not torch.equal(a[name], b[name])
        torch.testing.assert_close(even[name], (a[name] + b[name] + c[name]) / 3)
        torch.testing.assert_close(uneven[name], (a[name] + 2 * b[name] + 5 * c[name]) / 8)


def test_the_mean_of_one_adapter_is_that_adapter(saved):
    folder = saved("a", seed=1)
    alone, mean = weights(folder), weights(merge([folder, folder]))
    assert all(torch.equal(value, mean[name]) for name, value in alone.items())


def test_it_says_what_it_is(saved, tmp_path):
    one = saved("a", seed=1, trained={"steps": 20, "steps_before": 5, "recovered": 0.5})
    other = saved("b", seed=2, trained={"scale_min": 2.0, "scale_max": 12.0})
    merged = merge([one, other])
    wanted = {"base": "me/base", "steps": 20, "scale_min": 2.0, "scale_max": 9.0, "recovered": None, "merged": 2}
    assert wanted.items() <= merged.trained.items()
    merged.save_pretrained(tmp_path / "mean")
    assert (
        "20 steps, after 5 of the adapter it started from, mean of 2 adapters"
        in (tmp_path / "mean" / "README.md").read_text()
    )
    assert merge([tmp_path / "mean", one]).trained["merged"] == 3


def test_a_mean_samples(saved, pipe):
    one, other = saved("a", seed=1), saved("b", seed=2)
    pictures = []
    for adapter in (merge([one, other]), Adapter.from_pretrained(one)):
        adapter.attach(pipe)
        pictures.append(sample(pipe, scale=4.0))
        adapter.detach()
    assert torch.isfinite(pictures[0]).all() and not torch.allclose(*pictures, atol=1e-2)


def test_what_is_not_alike_is_refused(saved, tmp_path):
    one = saved("a", seed=1)
    for changes, what in (
        (dict(rank=3), "rank"),
        (dict(design="offset"), "design"),
        (dict(target_modules=("to_q",)), "target_modules"),
        (dict(trained={"base_fingerprint": "g"}), "base model"),
    ):
        other = saved("b", **changes)
        told = message_of(ModelError, lambda other=other: merge([one, other]))
        assert told == f"cannot merge {one} and {other}: they differ in {what}; merge what is alike"
    for sources, shares, told in (
        ([], None, "there is no adapter to merge; give at least two"),
        ([one], None, "there is 1 adapter to merge; give at least two"),
        ([one, one], [1], "there are 1 shares for 2 adapters; give one each"),
        ([one, one], [1, -1], "a share is -1; give positive numbers"),
        ([one, one], [1, float("nan")], "a share is nan; give positive numbers"),
        ([one, str(tmp_path / "none")], None, "no adapter at"),
    ):
        assert told in message_of(InputError, lambda s=sources, w=shares: merge(s, w))


def test_the_command_line_writes_it(saved, tmp_path, capsys):
    one, other = saved("a", seed=1), saved("b", seed=2)
    arguments = ["merge", one, other, "--shares", "1", "3", "--output", str(tmp_path / "mean")]
    assert cli.main(arguments) == 0
    assert "the mean of 2 adapters is in" in capsys.readouterr().out
    mean, wanted = weights(str(tmp_path / "mean")), weights(merge([one, other], [1, 3]))
    assert all(torch.equal(value, wanted[name]) for name, value in mean.items())
