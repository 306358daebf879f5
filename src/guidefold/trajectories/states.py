"""States: what a student sees and would have to answer, as tensors with a row per state, by name.

`call.*` are the denoiser's tensors, `negative.*` those of the negative prompt, `dial.*` the scales after the first,
`maker.controlnet.*` what a ControlNet was called with beside them, in place of what it makes of it for the denoiser;
`pred_guided` is what the student would have to answer and `energy` how far that is from the bare model's answer.
"""

import torch
from torch import Tensor

from guidefold.errors import ModelError

States = dict[str, Tensor]


def energy_of(prediction: Tensor, pred_guided: Tensor) -> Tensor:
    """Return |prediction - guided|^2 for each of the predictions [B, ...], as [B] in float32."""
    return (prediction.float() - pred_guided.float()).square().flatten(1).sum(1)


def once_for_each(states: States) -> States:
    """Return states on the CPU as a store keeps them: what never changes along a trajectory once, as `trajectory.x`.

    The states of a trajectory follow one another.
    """
    first = torch.cat([torch.tensor([True]), states["trajectory"].diff() != 0])
    row = first.cumsum(0) - 1
    kept = {}
    for name, value in states.items():
        once = value[first]
        constant = name not in ("trajectory", "step") and torch.equal(once[row], value)
        kept[f"trajectory.{name}" if constant else name] = (once if constant else value).cpu().contiguous()
    return kept


def joined(name: str, parts: list[Tensor]) -> Tensor:
    """Put the states of several batches together. Raises ModelError where their sequences differ in length."""
    if len({part.shape[1:] for part in parts}) > 1:
        raise ModelError(
            f"{name.removeprefix('call.')} has another length for other prompts; record with record_batch 1 and shard 1"
        )
    return torch.cat(parts)


def scales_of(states: States, first: str) -> dict[str, Tensor]:
    """Return the guidance scales among the keys of states by name; `first` is the first dial's."""
    found = {name.removeprefix("dial."): value for name, value in states.items() if name.startswith("dial.")}
    return {first: states["guidance_scale"], **found}


def negative_of(states: States) -> dict[str, Tensor] | None:
    """Return the negative prompt's conditions among the keys of states, or None."""
    found = {name.removeprefix("negative."): value for name, value in states.items() if name.startswith("negative.")}
    return found or None


def inputs_of(states: States) -> dict[str, Tensor]:
    """Return the denoiser's tensors among the keys of states."""
    return {name.removeprefix("call."): value for name, value in states.items() if name.startswith("call.")}


def own_of(states: States) -> dict[str, dict[str, Tensor]]:
    """Return what makers of inputs were called with beside the denoiser's tensors among the keys, by component."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in states.items():
        kind, _, rest = key.partition(".")
        component, _, name = rest.partition(".")
        if kind == "maker":
            found.setdefault(component, {})[name] = value
    return found
