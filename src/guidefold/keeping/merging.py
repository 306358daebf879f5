"""The mean of adapters that were trained from the same start (model soups, Wortsman et al., arXiv 2203.05482).

What each has learnt by heart of its own trajectories is averaged away, what all have learnt stays.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guidefold.errors import InputError, ModelError
from guidefold.keeping.adapter import Adapter
from guidefold.keeping.hub import describe, from_pretrained


def merge(sources: Sequence[str | Path], shares: Sequence[float] | None = None) -> Adapter:
    """Return an adapter whose weights are the mean of saved ones', weighted by their shares.

    Shares are positive and need not add up to 1; without them all count alike. Raises InputError or ModelError where an
    adapter cannot be loaded, and ModelError where two are not of one shape or not for one base model.
    """
    shares = [1.0] * len(sources) if shares is None else [float(share) for share in shares]
    if len(sources) < 2:
        raise InputError(f"there is {len(sources) or 'no'} adapter to merge; give at least two")
    if len(shares) != len(sources):
        raise InputError(f"there are {len(shares)} shares for {len(sources)} adapters; give one each")
    if bad := [share for share in shares if not 0 < share < float("inf")]:
        raise InputError(f"a share is {bad[0]:g}; give positive numbers")
    adapters = [from_pretrained(source) for source in sources]
    for source, other in zip(sources, adapters, strict=True):
        if unlike := [name for name, value in kind_of(other).items() if value != kind_of(adapters[0])[name]]:
            raise ModelError(f"cannot merge {sources[0]} and {source}: they differ in {unlike[0]}; merge what is alike")
    parts = list(zip([adapter.state_dict() for adapter in adapters], parts_of(shares), strict=True))
    mean = {name: sum(share * weights[name] for weights, share in parts) for name in parts[0][0]}
    merged = adapters[0]
    merged.trained = told_of([adapter.trained for adapter in adapters])
    merged.load_state_dict(mean)
    return merged


def parts_of(shares: Sequence[float]) -> list[float]:
    """Return shares that add up to 1, however large they are. Raises InputError where one would count for nothing."""
    parts = [share / max(shares) for share in shares]
    if 0.0 in (whole := [part / sum(parts) for part in parts]):
        raise InputError(f"a share is {min(shares):g} beside one of {max(shares):g}; give numbers of one order")
    return whole


def kind_of(adapter: Adapter) -> dict[str, Any]:
    """Return what adapters must agree in."""
    described, trained = describe(adapter), adapter.trained
    alike = {**described["adapter"], **described["spec"], "targets": described["shapes"]}
    return {**alike, "base model": trained.get("base_fingerprint")}


def told_of(trained: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a mean says of its training: the scales that all know, the steps of the longest."""
    longest = {name: max((one.get(name) or 0 for one in trained), default=0) for name in ("steps", "steps_before")}
    told = {**trained[0], **longest, "recovered": None, "merged": sum(one.get("merged", 1) for one in trained)}
    for name, narrowest in (("scale_min", max), ("scale_max", min)):
        if values := [one[name] for one in trained if name in one]:
            told[name] = narrowest(values)
    return told
