"""What the text-conditioned teachers are told: a wording of each picture, or nothing."""

import torch
from torch import Tensor
from transformers import CLIPTextModel

from clip import WORDING_WEIGHTS, members, pick, text_states

DROPPED = 0.1


class Texts:
    """Text states of pictures' wordings, computed when first asked for.

    `ids` [N, wordings, T] are token ids, `empty` [T] those of no text, `groups` the pictures that count as one.
    """

    def __init__(self, ids: Tensor, empty: Tensor, groups: list[list[int]], tower: CLIPTextModel) -> None:
        count, self.wordings, length = ids.shape
        self.ids, self.groups, self.tower = torch.cat([ids.flatten(0, 1), empty[None]]), groups, tower
        self.known = torch.zeros(count * self.wordings + 1, dtype=torch.bool)
        self.states = torch.empty(len(self.known), length, tower.config.hidden_size, dtype=torch.float16)

    def of(self, rows: Tensor) -> Tensor:
        """Return states [B, T, D] of rows of `ids`."""
        new = rows[~self.known[rows]].unique()
        if len(new):
            self.states[new] = text_states(self.ids[new], self.tower).half()
            self.known[new] = True
        return self.states[rows].float()

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return pictures [B] of the groups that `indices` names, and states [B, T, D] of what each is told."""
        chosen = members(self.groups, indices, generator)
        rows = chosen * self.wordings + pick(torch.tensor(WORDING_WEIGHTS), len(chosen), generator)
        dropped = torch.rand(len(chosen), generator=generator, device=generator.device) < DROPPED
        return chosen, self.of(torch.where(dropped.cpu(), len(self.ids) - 1, rows))
