"""Count what adapters of each design and rank add to Stable Diffusion 2.1 and XL, without any weights in memory."""

from typing import Any

import torch
from torch import nn

from common import RESULTS, provenance, save
from denoisers import BUILDERS, Call
from guidefold import ui
from guidefold.adapters import ConditionSpec
from guidefold.adapters.layers import DESIGNS
from guidefold.config import AdapterConfig
from guidefold.denoiser import read_call
from guidefold.keeping import Adapter

DENOISERS = ("sd21", "sdxl")
RANKS = (0, 8, 16, 32)  # 0: the default design without deltas
BOUND = 0.03


def share(denoiser: nn.Module, call: Call, design: str, rank: int) -> dict[str, Any]:
    """Return how many parameters an adapter has, in its parts, and what part of the denoiser's that is."""
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    adapter = Adapter.build(denoiser, spec, AdapterConfig(design=design, rank=rank))  # pyright: ignore[reportArgumentType]
    count, base = adapter.parameter_count(), sum(parameter.numel() for parameter in denoiser.parameters())
    parts = {name: sum(map(torch.numel, part.parameters())) for name, part in adapter.named_children()}
    return {"targets": len(adapter.shapes), "parameters": count, "base": base, "share": count / base, "parts": parts}


def main() -> None:
    made, results = provenance(), {}
    with torch.device("meta"):
        for name in DENOISERS:
            denoiser, call = BUILDERS[name](1)
            for design in DESIGNS:
                ranks = RANKS if design == "film" else RANKS[1:]
                results[name, design] = {rank: share(denoiser, call, design, rank) for rank in ranks}
    rows = [
        [f"{name} {design}", next(iter(by_rank.values()))["targets"], *(cell(by_rank.get(rank)) for rank in RANKS)]
        for (name, design), by_rank in results.items()
    ]
    ui.table(f"Extra parameters (* at most {BOUND:.0%})", ["", "targets", *(f"rank {rank}" for rank in RANKS)], rows)
    save(
        RESULTS / "parameters.json",
        made | {"bound": BOUND},
        {" ".join(key): by_rank for key, by_rank in results.items()},
    )


def cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    return f"{result['parameters'] / 1e6:.2f} M {result['share']:.2%} {'*' if result['share'] <= BOUND else ' '}"


if __name__ == "__main__":
    main()
