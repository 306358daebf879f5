"""What the text-conditioned teachers are told: a wording of each picture, or nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clip import WORDING_WEIGHTS, members, pick

DROPPED = 0.1


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Token ids [N, wordings, T] of pictures, `none` [T] those of no text, `groups` the pictures that count as one."""

    ids: Tensor
    none: Tensor
    groups: list[list[int]]

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return pictures [B] of the groups that `indices` names, and token ids [B, T] of what each is told."""
        chosen = members(self.groups, indices, generator)
        told = self.ids[chosen, pick(torch.tensor(WORDING_WEIGHTS), len(chosen), generator)]
        dropped = torch.rand(len(chosen), generator=generator, device=generator.device) < DROPPED
        return chosen, torch.where(dropped.cpu()[:, None], self.none, told)
