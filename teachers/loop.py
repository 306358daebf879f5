"""One small resumable training loop for every part of the teacher."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHECKPOINT_SECONDS = 120


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over the first 3 % of the steps, then fall to zero along a cosine: a pure function of the step."""
    warm = min(1.0, (step + 1) / max(1, 0.03 * steps))
    return peak * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def batch_indices(step: int, batch: int, size: int, seed: int) -> Tensor:
    """Return the examples of a step: epochs of shuffled data, a pure function of (seed, step)."""
    first, picked = step * batch, []
    while len(picked) < batch:
        epoch, offset = divmod(first + len(picked), size)
        order = torch.randperm(size, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        picked += order[offset : offset + batch - len(picked)].tolist()
    return torch.tensor(picked)


def save_state(
    path: Path, step: int, model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Write a checkpoint in one piece: it is there completely or not at all."""
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in state.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"step": str(step)})
    partial.replace(path)


def load_state(path: Path, model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> int:
    """Read a checkpoint into the model, its average and the optimizer; return the step to go on from."""
    from safetensors import safe_open

    tensors = load_file(path)
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for name in ema:
        ema[name].copy_(tensors[f"ema.{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, field = key.split(".", 2)
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    with safe_open(path, "pt") as file:
        return int(file.metadata()["step"])


def fit(
    name: str,
    model: nn.Module,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    *,
    size: int,
    steps: int,
    batch: int,
    peak: float,
    run: Path,
    decay: float = 0.999,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> nn.Module:
    """Train until `steps`, going on from the last checkpoint in `run`, and return the model with averaged weights.

    `loss_of(indices, generator)` returns the loss of a batch; everything random in it comes from the generator, which
    is seeded by (seed, step), so that an interrupted run ends like an uninterrupted one.
    """
    run.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=weight_decay)
    ema = {k: v.detach().clone() for k, v in model.named_parameters()}
    checkpoint, start = run / f"{name}.safetensors", 0
    if checkpoint.exists():
        start = load_state(checkpoint, model, ema, optimizer)
    saved = time.monotonic()
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as progress, (run / f"{name}.jsonl").open("a") as log:
        bar = progress.add_task(name, total=steps, completed=start, loss="")
        average = None
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, peak)
            generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
            loss = loss_of(batch_indices(step, batch, size, seed), generator)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            blend = min(decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(ema.values()), [p.detach() for p in model.parameters()], 1 - blend)
            average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
            progress.update(bar, advance=1, loss=f"loss {average:.4f}")
            if step % 50 == 0:
                log.write(json.dumps({"step": step, "loss": average, "time": time.time()}) + "\n")
                log.flush()
            if time.monotonic() - saved > CHECKPOINT_SECONDS or step + 1 == steps:
                save_state(checkpoint, step + 1, model, ema, optimizer)
                saved = time.monotonic()
    model.load_state_dict(ema, strict=False)
    return model.eval()
