"""The student: the frozen denoiser with an adapter, which is all that learns."""

from typing import Any

import torch
from torch import Tensor, nn

from guidefold.capture.makers import Bound, remade
from guidefold.denoiser import predict
from guidefold.keeping import Adapter
from guidefold.trajectories.states import States, energy_of, inputs_of, negative_of, own_of, scales_of


class Student(nn.Module):
    """Predicts guided outputs in one pass; its only parameters are the adapter's."""

    denoiser: nn.Module

    def __init__(self, denoiser: nn.Module, adapter: Adapter, static: dict[str, Any], makers: Bound = ()) -> None:
        super().__init__()
        self.adapter, self.static, self.makers = adapter, static, makers
        # not a child: the base model is neither trained nor saved nor sent between processes
        object.__setattr__(self, "denoiser", denoiser)

    def forward(self, states: States) -> Tensor:
        """Return predictions [B, ...] at states; what the scheduler does not see of them counts as right."""
        scales, inputs = scales_of(states, next(iter(self.adapter.spec.offs))), inputs_of(states)
        made = remade(self.makers, inputs, own_of(states))
        with self.adapter.at(scales, negative=negative_of(states)):
            prediction = predict(self.denoiser, inputs, self.static, made)
        return torch.where(states["mask"], prediction, states["pred_guided"]) if "mask" in states else prediction


@torch.no_grad()
def energies(student: Student, states: States) -> tuple[Tensor, Tensor]:
    """Return |student - guided|^2 and |cond - guided|^2 for each of the states, [B] each."""
    return energy_of(student(states), states["pred_guided"]), states["energy"]
