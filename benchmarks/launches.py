"""Count what an adapter adds to the work of one step, operator by operator: `python benchmarks/launches.py`.

On the full set of layers of SDXL and of a Flux with 57 blocks, in tiny widths, because a count does not depend on them.
An operator that only makes a view launches nothing; one that works on a list of tensors launches one kernel for each 64
of them on a GPU, as torch's `multi_tensor_apply` does, and is counted as that.
"""

import argparse
import math
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from common import RESULTS, provenance, save
from denoisers import LAYERS, Call
from guidefold import ui
from guidefold.acting.folding import Folding
from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.denoiser import read_call
from guidefold.keeping import Adapter

TENSORS = 64  # of a list that one launch works on
VIEWS = {"view", "t", "transpose", "expand", "unsqueeze", "squeeze", "slice", "select", "split", "split_with_sizes"}
VIEWS |= {"_unsafe_view", "detach", "alias", "permute", "unbind", "as_strided", "_reshape_alias", "chunk", "unflatten"}


class Count(TorchDispatchMode):
    """Counts operators by name while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("_foreach"):
            self.seen[name] += math.ceil(len(args[0]) / TENSORS)
        elif name not in VIEWS:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def counted(denoiser: nn.Module, call: Call) -> Counter[str]:
    denoiser(**call)  # what is worked out once a run
    with Count() as count:
        denoiser(**call)
    return count.seen


def judge(denoiser: nn.Module, call: Call) -> dict[str, Any]:
    denoiser = denoiser.eval().requires_grad_(False)
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    bare = counted(denoiser, call)
    adapter = Adapter.build(denoiser, spec, AdapterConfig(width=16, squeeze=4)).requires_grad_(False)
    adapter.attach(denoiser).guidance_scale = 4.0
    folded = counted(denoiser, call)
    possible, Folding.possible = Folding.possible, lambda *_: False  # pyright: ignore[reportAttributeAccessIssue]
    live = counted(denoiser, call)
    Folding.possible = possible
    return {
        "places": len(adapter.shapes),
        "bare": bare.total(),
        "folded_adds": folded.total() - bare.total(),
        "live_adds": live.total() - bare.total(),
        "folded_operators": dict(sorted((folded - bare).items())),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    made = provenance()
    torch.manual_seed(0)
    results = {name: judge(*make()) for name, make in LAYERS.items()}
    rows = [(name, *map(str, list(one.values())[:-1])) for name, one in results.items()]
    ui.table("Kernel launches of a step", ("layers of", "places", "bare", "folded adds", "live adds"), rows)
    save(RESULTS / "launches.json", made, results)


if __name__ == "__main__":
    main()
