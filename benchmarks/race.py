"""The race: the default design against its own settings, our other designs and other people's methods."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from guidefold.config import AdapterConfig, TrajectoryConfig
from guidefold.distillation.states import RecordedStates
from guidefold.trajectories.store import Store
from learning import Learner, lasting, seconds_per_step, settings, trained
from paper import PaperCrossAttention, PaperOffset
from peers import LoRA, TextSharpener, WholeModel

PEERS = {
    "whole model": WholeModel,
    "LoRA": LoRA,
    "text sharpener": TextSharpener,
    "paper's offset": PaperOffset,
    "paper's cross-attention": PaperCrossAttention,
}
VARIANTS: dict[str, Learner] = {
    "film": AdapterConfig(),
    "film, squeeze 64": AdapterConfig(squeeze=64),
    "film, prompt unseen": AdapterConfig(see_condition=False),
    "film with deltas": AdapterConfig(rank=8),
    "film with deltas of rank 32": AdapterConfig(rank=32),
    "offset": AdapterConfig(design="offset"),
    "cross-attention": AdapterConfig(design="cross_attention"),
    **PEERS,
}


def race(pipe: Any, store: Store, trajectory: TrajectoryConfig, options: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Train every variant for equally many steps, or for as many as fit in equal time."""
    for name in options.variants:
        learner = VARIANTS[name]
        config = settings(options, "recorded", seed)
        if not isinstance(learner, AdapterConfig):
            config = replace(config, learning_rate=learner.learning_rate)
        source = RecordedStates([store], config)
        seconds = seconds_per_step(pipe, source, learner, config)
        if options.minutes is not None:
            config = lasting(config, max(1, round(60 * options.minutes / seconds)))
        row = trained(pipe, source, learner, config, options.judge)
        yield {"variant": name, "steps": config.steps, "seconds_per_step": round(seconds, 3), **row}
