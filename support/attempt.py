"""Run cases once with guidance and say what happened: `python -m support.attempt WanPipeline ...`."""

import sys
import time
import traceback
from typing import Any

import torch

from support.case import build


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if hasattr(value, "shape"):
        return [torch.as_tensor(value)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def attempt(name: str) -> None:
    start = time.perf_counter()
    case = build(name)
    if case.pipe.components.get("scheduler") is None:
        print("  has no scheduler")
    outcomes = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        answer = case.pipe(**case.call, generator=generator)
        outcomes.append(tensors(answer if isinstance(answer, tuple) else dict(answer)))
    if not outcomes[0]:
        print("  answers with no tensor: ask for output_type latent, pt or np")
    elif not all(one.double().isfinite().all() for one in outcomes[0]):
        print("  answers with values that are not finite")
    elif not all(torch.equal(a, b) for a, b in zip(*outcomes[:2], strict=True)):
        print("  is not a function of its generator")
    elif all(torch.equal(a, b) for a, b in zip(outcomes[0], outcomes[2], strict=True)):
        print("  does not depend on its generator")
    else:
        print(f"{name}: runs, {[tuple(one.shape) for one in outcomes[0]]}, {time.perf_counter() - start:.1f} s")
        return
    print(f"{name}: look again")


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        try:
            attempt(wanted)
        except Exception as error:
            traceback.print_exc(limit=-3)
            print(f"{wanted}: {type(error).__name__}: {str(error)[:300]}")
