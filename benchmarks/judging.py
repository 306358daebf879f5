"""The figures of predictions in one pass that benchmarks compare: an adapter's, or a peer's."""

from collections.abc import Sequence
from typing import Any

from guidefold.evaluation.predictions import on_own_states, on_teacher_states


def judged(
    pipe: Any, adapter: Any, prompts: Sequence[str], guidance_scales: Sequence[float], **arguments: Any
) -> dict[str, Any]:
    """Return guidance recovered on prompts: by scale and by timestep, on the teacher's states and on own ones.

    `arguments` go to the pipeline's calls.
    """
    settings = dict(guidance_scales=guidance_scales, steps=20, seed=1_000_000, batch=min(32, len(prompts))) | arguments
    adapter.attach(pipe)
    by_scale, by_timestep = on_teacher_states(pipe, adapter, prompts, **settings)
    own = on_own_states(pipe, adapter, prompts, **settings)
    adapter.detach()
    return {
        "recovered": sum(by_scale.values()) / len(by_scale),
        "recovered_on_own_states": sum(own.values()) / len(own),
        "recovered_by_scale": by_scale,
        "recovered_on_own_states_by_scale": own,
        "recovered_by_timestep": by_timestep,
    }
