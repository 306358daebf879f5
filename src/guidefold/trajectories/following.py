"""Trajectories that an adapter samples itself, so that it learns what is right where its own sampling goes.

What a student sees while it samples drifts from what its teacher's trajectories visit. Asking the teacher at the
student's states and learning from both is imitation learning's remedy (DAgger, arXiv 1011.0686).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from guidefold.acting.fitting import check
from guidefold.adapters.conditions import ConditionSpec
from guidefold.errors import InputError
from guidefold.keeping import Adapter
from guidefold.keeping.group import AdapterGroup
from guidefold.keeping.hub import load
from guidefold.trajectories.states import States, negative_of, scales_of


def adapter_to_follow(source: str, denoiser: nn.Module, spec: ConditionSpec, *, alone: bool) -> Adapter:
    """Return an adapter that can sample here. Raises InputError or ModelError where it cannot.

    `alone` says that guidance runs no other denoiser than this one.
    """
    adapter = load(source)
    if isinstance(adapter, AdapterGroup) or not alone:
        raise InputError(f"follow is {source}, but guidance runs several denoisers here; leave follow out")
    check(adapter, denoiser)
    if (adapter.spec.offs, adapter.spec.negative) != (spec.offs, spec.negative):
        ours, theirs = told(spec), told(adapter.spec)
        raise InputError(f"follow is {source}, which knows {theirs}, and this records {ours}; record what it knows")
    return adapter.to(denoiser.device, denoiser.dtype).requires_grad_(False)  # pyright: ignore[reportCallIssue, reportArgumentType]


def told(spec: ConditionSpec) -> str:
    """Say what an adapter is guided by."""
    return f"{', '.join(spec.offs)} {'with' if spec.negative else 'without'} negative prompts"


@contextmanager
def sampling(adapter: Adapter, denoiser: nn.Module, known: States) -> Iterator[None]:
    """Let an adapter predict for a while, at the scales and negative prompts [B, ...] of the trajectories."""
    adapter.attach(denoiser)
    try:
        with adapter.at(scales_of(known, next(iter(adapter.spec.offs))), negative=negative_of(known)):
            yield
    finally:
        adapter.detach()
