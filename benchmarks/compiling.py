"""Time of a step with the denoiser's repeated blocks compiled: in use and in training, bare and with an adapter.

`python benchmarks/compiling.py`; the variants take turns in one process. Time is that of the processor, which hardly
depends on what else a machine does; of compiling itself it is the clock's.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from common import RESULTS, provenance, save
from denoisers import BUILDERS, Builder, Call
from guidefold import ui
from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.denoiser import prediction_of, read_call
from guidefold.keeping import Adapter
from speed import SCALE, quartiles, ratios, twin


def flux(batch: int) -> tuple[nn.Module, Call]:
    """A transformer as Flux, of an eighth of its width and a fifth of its depth, at 256 x 256 pixels."""
    model = FluxTransformer2DModel(
        in_channels=64, num_layers=4, num_single_layers=8, attention_head_dim=64, num_attention_heads=6,
        joint_attention_dim=512, pooled_projection_dim=256, axes_dims_rope=(8, 28, 28),
    )  # fmt: skip
    call = {
        "hidden_states": torch.randn(batch, 256, 64),
        "timestep": torch.full((batch,), 0.8),
        "encoder_hidden_states": torch.randn(1, 77, 512).repeat(batch, 1, 1),
        "pooled_projections": torch.randn(1, 256).repeat(batch, 1),
        "img_ids": torch.zeros(256, 3),
        "txt_ids": torch.zeros(77, 3),
    }
    return model, call


CASES: dict[str, tuple[Builder, int]] = {"bundled": (BUILDERS["bundled"], 16), "flux": (flux, 2)}


def adapted(denoiser: nn.Module, spec: ConditionSpec) -> tuple[nn.Module, Adapter]:
    """Return a twin of a denoiser with a new default adapter, which is made to do something."""
    torch.manual_seed(0)
    other, adapter = twin(denoiser), Adapter.build(denoiser, spec, AdapterConfig())
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return other, adapter.attach(other)


def using(model: nn.Module, call: Call, adapter: Adapter | None) -> Callable[[], Any]:
    @torch.no_grad()
    def work() -> None:
        model(**call, return_dict=False)

    return within(work, adapter, SCALE)


def training(model: nn.Module, call: Call, adapter: Adapter | None) -> Callable[[], Any]:
    """Return a forward and a backward pass: to the adapter's parameters, or to the latents of a bare denoiser."""
    first, latents = next(iter(call.items()))

    def work() -> None:
        inputs = call if adapter else {**call, first: latents.clone().requires_grad_(True)}
        prediction_of(model(**inputs, return_dict=False)).square().mean().backward()

    return within(work, adapter, [SCALE + row for row in range(len(latents))])


def within(work: Callable[[], Any], adapter: Adapter | None, scale: float | list[float]) -> Callable[[], Any]:
    """Return work that an adapter takes part in at a scale."""

    def whole() -> None:
        if adapter is None:
            return work()
        with adapter.at(scale):
            return work()

    return whole


def judge(name: str, builder: Builder, batch: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    denoiser, call = builder(batch)
    denoiser.eval().requires_grad_(False)
    spec, result = ConditionSpec.observe(denoiser, read_call(denoiser, (), call)), {}
    for what, make in (("use", using), ("training", training)):
        plain, compiled = adapted(denoiser, spec), adapted(denoiser, spec)
        compiled[0].compile_repeated_blocks()  # pyright: ignore[reportCallIssue]
        works = {"bare": make(denoiser, call, None), "adapter": make(plain[0], call, plain[1])}
        works["compiled"] = make(compiled[0], call, compiled[1])
        start = time.perf_counter()
        works["compiled"]()
        first = time.perf_counter() - start
        times = measure(works, rounds, f"{name}, {what}")
        result[what] = {
            "milliseconds": {one: quartiles([1000 * value for value in values]) for one, values in times.items()},
            "adapter_over_bare": ratios(times["adapter"], times["bare"]),
            "compiled_over_adapter": ratios(times["compiled"], times["adapter"]),
            "seconds_to_compile": first,
        }
        print(
            name, what, {one: round(1000 * statistics.median(values), 1) for one, values in times.items()}, flush=True
        )
    parameters = sum(one.numel() for one in denoiser.parameters())
    return {"batch": batch, "parameters": parameters, **result}


def measure(works: dict[str, Callable[[], Any]], rounds: int, label: str) -> dict[str, list[float]]:
    """Return processor seconds of each work in each round but the first, the order rotated."""
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    with ui.progress(label, rounds + 1) as bar:
        for number in range(rounds + 1):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                start = time.process_time()
                works[name]()
                times[name].append(time.process_time() - start)
            bar.advance()
    return {name: values[1:] for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options, made = parser.parse_args(), provenance()
    results = {name: judge(name, *CASES[name], options.rounds) for name in options.cases}
    save(RESULTS / "compiling.json", made, results)


if __name__ == "__main__":
    main()
