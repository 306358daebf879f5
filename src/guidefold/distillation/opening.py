"""Open where a run gets its states from, and make sure that it is of this model."""

from collections.abc import Mapping
from typing import Any

from guidefold.capture.makers import bound
from guidefold.config import TrainConfig, TrajectoryConfig
from guidefold.denoiser import chosen_denoiser
from guidefold.distillation.states import OnlineStates, RecordedStates, Source, makers_of, told_by
from guidefold.errors import InputError
from guidefold.trajectories.additions import added_to
from guidefold.trajectories.identity import fingerprint
from guidefold.trajectories.prompts import Conditions, as_conditions
from guidefold.trajectories.several import Folders, open_stores


def open_source(
    pipe: Any,
    store: Folders | None,
    conditions: Conditions | None,
    config: TrainConfig,
    trajectory: TrajectoryConfig,
    arguments: Mapping[str, Any],
) -> Source:
    """Return where states come from, checked against the pipeline."""
    if config.source == "online":
        if conditions is None:
            raise InputError(
                "source is online but there are no conditions; give prompts, or source recorded and a store"
            )
        return OnlineStates(pipe, as_conditions(conditions), trajectory, config, **arguments)
    if arguments:
        raise InputError(f"the argument {next(iter(arguments))} is for recording; a store has been recorded already")
    if store is None:
        raise InputError("source is recorded but there is no store; record one first, or choose source online")
    stores = open_stores(store)
    first, denoiser = stores[0], chosen_denoiser(pipe, told_by(stores[0])[0].denoiser)
    first.check_added(added_to(denoiser))
    first.check_model(fingerprint(denoiser))
    for maker, network in bound(pipe, makers_of(first)):
        first.check_added(added_to(network), maker.component)
        first.check_other(maker.component, fingerprint(network))
    return RecordedStates(stores, config)


def needs_of(store: Folders | None) -> tuple[str | None, tuple[str, ...]]:
    """Return the component that a store was recorded of, where guidance ran several, and those that make its inputs.

    Raises StoreError.
    """
    if store is None:
        return None, ()
    first = open_stores(store)[0]
    return first.header["spec"].get("denoiser"), tuple(one.component for one in makers_of(first))
