"""What judges pictures: any feature network, with text features and features of real pictures if there are any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guidefold.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Maps pictures [N, 3, H, W] in 0..1, and prompts, to features [N, D].

    Films are given frame by frame, and sounds as [N, C, T]. `reference` [M, D] are features of real pictures; without
    them sets are compared with the teacher's pictures.
    """

    images: Callable[[Tensor], Tensor]
    texts: Callable[[Sequence[str]], Tensor] | None = None
    reference: Tensor | None = None
    name: str = "custom features"


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], pictures: Tensor, size: int = 64) -> Tensor:
    """Apply a feature network a batch at a time and return features [N, D] on the CPU."""
    return torch.cat([function(chunk).float().cpu() for chunk in pictures.split(size)])


def inception() -> Judge:
    """Return the Inception features of the FID literature, through torch-fidelity. Raises InputError without it."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise InputError("Inception features need torch-fidelity; pip install 'guidefold[inception]'") from error
    network: nn.Module = FeatureExtractorInceptionV3("inception", ["2048"])
    return Judge(images=lambda pictures: network((pictures * 255).round().byte())[0], name="Inception-v3 pool3")
