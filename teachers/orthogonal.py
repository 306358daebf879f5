"""Muon (Jordan et al. 2024): momentum whose singular values are all brought to about 1.

Unlike `torch.optim.Muon` it takes kernels of convolutions too, and works in float32 on a CPU, where bfloat16 without
hardware for it is 20 times slower.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

COEFFICIENTS = 3.4445, -4.7750, 2.0315
ROUNDS = 5


class Orthogonal(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for parameters of two dimensions or more.

    Updates are as large as AdamW's, so that one rate serves both (Liu et al. 2025, arXiv 2502.16982).
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take one step down the gradients."""
        assert closure is None
        for group in self.param_groups:
            rate = group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                update = orthogonal(parameter.grad.add(state["momentum"], alpha=group["momentum"]).flatten(1))
                length = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - rate * group["weight_decay"]).sub_(update.view_as(parameter), alpha=rate * length)


def orthogonal(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix [M, N] to between 0.7 and 1.2, by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
