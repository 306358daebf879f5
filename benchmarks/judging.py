"""The figures of predictions in one pass that benchmarks compare: an adapter's, or a peer's."""

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from guidefold.evaluation.predictions import on_own_states, on_teacher_states
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import States


class Remembering(Recorder):
    """A recorder of what one process judges all of a comparison on: the teacher's states are made once."""

    known: dict[str, States]

    def states(self, indices: Sequence[int], *, keep_all: bool = False) -> States:
        asked = f"{self.config} {list(indices)}"
        if asked not in self.known:
            self.known[asked] = super().states(indices, keep_all=keep_all)
        return self.known[asked]


class Judge:
    """Guidance recovered on prompts: by scale and by timestep, on the teacher's states and on own ones."""

    def __init__(self, pipe: Any, prompts: Sequence[str], guidance_scales: Sequence[float], **arguments: Any) -> None:
        """Judge a pipeline's adapters and peers; `arguments` go to its calls."""
        self.pipe, self.prompts, self.scales = pipe, prompts, guidance_scales
        self.settings = dict(steps=20, seed=1_000_000, batch=min(32, len(prompts))) | arguments
        self.recorder = type("Recorder", (Remembering,), {"known": {}})

    def __call__(self, adapter: Any) -> dict[str, Any]:
        adapter.attach(self.pipe)
        with patch("guidefold.evaluation.predictions.Recorder", self.recorder):
            by_scale, by_timestep = on_teacher_states(self.pipe, adapter, self.prompts, self.scales, **self.settings)
        # at the scale in the middle: they take most of the time
        own = on_own_states(self.pipe, adapter, self.prompts, [self.scales[len(self.scales) // 2]], **self.settings)
        adapter.detach()
        return {
            "recovered": sum(by_scale.values()) / len(by_scale),
            "recovered_on_own_states": sum(own.values()) / len(own),
            "recovered_by_scale": by_scale,
            "recovered_on_own_states_by_scale": own,
            "recovered_by_timestep": by_timestep,
        }
