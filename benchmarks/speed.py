"""Time one sampling step's denoiser work: guidance with two rows per image, the adapter with one, and the bare model.

`python benchmarks/speed.py --cases bundled:1 bundled-dit:16 sd21:1`; a case is a denoiser and a batch size; those
called bundled have the bundled adapter instead of a new one with default targets. The three take turns in one process,
and the ratios are taken within a round, because a machine's speed changes from minute to minute. The steps are those of
a pipeline's run, each with a timestep of its own; what a run costs once, at its first two steps, is told beside.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from common import RESULTS, device_name, provenance, save
from denoisers import BUILDERS, Call, doubled, mapped
from guidefold import ui
from guidefold.acting.folding import Folding
from guidefold.acting.requests import Request
from guidefold.adapters import ConditionSpec
from guidefold.adapters.layers import DESIGNS
from guidefold.config import AdapterConfig
from guidefold.denoiser import prediction_of, read_call
from guidefold.guidance import classifier_free
from guidefold.keeping import Adapter
from guidefold.keeping.hub import BUNDLED, from_pretrained

CASES = [f"{name}:{batch}" for name in BUNDLED for batch in (1, 16)]
SCALE = 7.5
WARMUP = 2  # steps; after them a run's modulations are worked out
BEGUN = 5  # runs whose first steps are timed
MEGABYTE = 2**20
COLUMNS = [
    "case",
    "parameters",
    "adapter",
    "bare ms",
    "adapter ms",
    "cfg ms",
    "adapter / bare",
    "cfg / adapter",
    "once ms",
]
Variants = dict[str, Callable[[], Tensor]]


def parse() -> argparse.Namespace:
    defaults = AdapterConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="NAME:BATCH")
    parser.add_argument("--rounds", type=int, default=20, help="times that each of the three is timed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--design", choices=list(DESIGNS), default=defaults.design)
    parser.add_argument("--rank", type=int, help="default: the design's")
    parser.add_argument("--live", action="store_true", help="the live form, as for images of different prompts")
    parser.add_argument("--compile", action="store_true", help="compile the denoiser, for the three alike")
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/speed-DEVICE.json")
    return parser.parse_args()


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A denoiser, its twin on the same weights with the adapter attached, and a call for them."""

    denoiser: nn.Module
    adapted: nn.Module
    adapter: Adapter
    call: Call
    timestep: str
    times: Tensor  # of a run

    def at(self, step: int) -> None:
        """Let the calls to come be those of a step."""
        self.call[self.timestep] = self.times[step].expand(self.call[self.timestep].shape)

    def run(self) -> AbstractContextManager[None]:
        """Begin a run as a pipeline does, which tells its timesteps."""
        scale = torch.tensor([SCALE], device=self.times.device)
        return self.adapter.asked(Request.of(scale, times=lambda: self.times))

    def variants(self) -> Variants:
        twice, (latents, *_) = doubled(self.call), self.call
        scale = torch.full((len(self.call[latents]),), SCALE, device=self.times.device)

        def bare() -> Tensor:
            return prediction_of(self.denoiser(**self.call, return_dict=False))

        def adapter() -> Tensor:
            return prediction_of(self.adapted(**self.call, return_dict=False))

        def cfg() -> Tensor:
            # pipelines double their prompt once, and their latents at every step
            rows = {latents: torch.cat([self.call[latents]] * 2)}
            uncond, cond = prediction_of(self.denoiser(**{**twice, **rows}, return_dict=False)).chunk(2)
            return classifier_free(cond, uncond, scale)

        return {"bare": bare, "adapter": adapter, "cfg": cfg}


def twin(denoiser: nn.Module) -> nn.Module:
    """Return a copy of a denoiser on the very same weights."""
    return copy.deepcopy(denoiser, {id(value): value for value in [*denoiser.parameters(), *denoiser.buffers()]})


@torch.no_grad()
def prepare(case: str, options: argparse.Namespace) -> Bench:
    name, _, batch = case.partition(":")
    torch.manual_seed(0)
    denoiser, call = BUILDERS[name](int(batch or 1))
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    denoiser = denoiser.eval().requires_grad_(False).to(device, dtype)
    call = mapped(call, lambda value: value.to(device, dtype if value.is_floating_point() else None))
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    if name in BUNDLED:
        adapter = from_pretrained(name)
    else:
        adapter = Adapter.build(denoiser, spec, AdapterConfig(design=options.design, rank=options.rank))
    for parameter in adapter.requires_grad_(False).to(device).parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))  # a new adapter adds nothing, and zeros could be fast
    adapted = twin(denoiser)
    adapter.attach(adapted).guidance_scale = SCALE
    if options.live:
        Folding.possible = lambda *_: False  # pyright: ignore[reportAttributeAccessIssue]
    if options.compile:
        denoiser, adapted = torch.compile(denoiser, fullgraph=True), torch.compile(adapted, fullgraph=True)
    read = read_call(denoiser, (), call)
    times = torch.linspace(1, 0.05, WARMUP + options.rounds, device=device) * read.tensors[read.timestep].max()
    times = times.to(read.tensors[read.timestep].dtype)
    return Bench(
        denoiser=denoiser, adapted=adapted, adapter=adapter, call=call, timestep=read.timestep, times=times
    )  # fmt: skip


def seconds(work: Callable[[], Tensor], device: str) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure(bench: Bench, variants: Variants, rounds: int, device: str, label: str) -> dict[str, list[float]]:
    """Return seconds of each variant in each round, the order rotated so that none always follows the same one."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    with ui.progress(label, WARMUP + rounds) as bar:
        for number in range(WARMUP + rounds):
            first = number % len(names)
            bench.at(number)
            for name in names[first:] + names[:first]:
                times[name].append(seconds(variants[name], device))
            bar.advance()
    return {name: values[WARMUP:] for name, values in times.items()}


def beginning(bench: Bench, variants: Variants, device: str, usual: float) -> float:
    """Return the seconds that a run's first two steps take beyond two usual ones."""
    found = []
    for _ in range(BEGUN):
        with bench.run():
            for step in range(WARMUP):
                bench.at(step)
                found.append(seconds(variants["adapter"], device))
    return WARMUP * (statistics.mean(found) - usual)


def peak_megabytes(variants: Variants, device: str) -> dict[str, float] | None:
    """Return the memory that each variant needs beyond what is there before it; unknown on a CPU."""
    if not device.startswith("cuda"):
        return None
    peaks = {}
    for name, work in variants.items():
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        synchronize(device)
        peaks[name] = (torch.cuda.max_memory_allocated(device) - before) / MEGABYTE
    return peaks


def quartiles(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"low": low, "median": median, "high": high}


def ratios(over: list[float], under: list[float]) -> dict[str, float]:
    return quartiles([a / b for a, b in zip(over, under, strict=True)])


@torch.inference_mode()
def judge(case: str, options: argparse.Namespace) -> dict[str, Any]:
    bench = prepare(case, options)
    variants = bench.variants()
    changed = not torch.equal(variants["bare"](), variants["adapter"]())
    assert changed, "the adapter changes nothing, so there is nothing to time"
    with bench.run():
        times = measure(bench, variants, options.rounds, options.device, case)
    begun = beginning(bench, variants, options.device, statistics.median(times["adapter"]))
    parameters = sum(parameter.numel() for parameter in bench.denoiser.parameters())
    return {
        "parameters": parameters,
        "adapter_parameters": bench.adapter.parameter_count(),
        "adapter_share": bench.adapter.parameter_count() / parameters,
        "targets": len(bench.adapter.shapes),
        "milliseconds": {name: quartiles([1000 * value for value in values]) for name, values in times.items()},
        "adapter_over_bare": ratios(times["adapter"], times["bare"]),
        "cfg_over_adapter": ratios(times["cfg"], times["adapter"]),
        "beginning_milliseconds": 1000 * begun,
        "peak_megabytes_beyond_weights": peak_megabytes(variants, options.device),
        "seconds": {name: [round(value, 6) for value in values] for name, values in times.items()},
    }


def row(case: str, result: dict[str, Any]) -> list[str]:
    def spread(values: dict[str, float], digits: int) -> str:
        return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}-{values['high']:.{digits}f})"

    times = result["milliseconds"]
    digits = 2 if times["bare"]["median"] < 100 else 0
    return [
        case,
        f"{result['parameters'] / 1e6:.1f} M",
        f"{result['adapter_parameters'] / 1e6:.2f} M ({result['adapter_share']:.1%})",
        *(spread(times[name], digits) for name in ("bare", "adapter", "cfg")),
        spread(result["adapter_over_bare"], 3),
        spread(result["cfg_over_adapter"], 3),
        f"{result['beginning_milliseconds']:.{digits}f}",
    ]


def main() -> None:
    options = parse()
    diffusers.logging.set_verbosity_error()  # it warns of casting, also where there is nothing to cast
    made = provenance(options.device) | {key: getattr(options, key) for key in ("dtype", "design", "rank", "compile")}
    results = {case: judge(case, options) for case in options.cases}
    title = f"One step on {device_name(options.device)}, {options.dtype}, median (quartiles)"
    ui.table(title, COLUMNS, [row(case, result) for case, result in results.items()])
    kind = "-compiled" if options.compile else ""
    save(options.output or RESULTS / f"speed-{options.device}-{options.dtype}{kind}.json", made, results)


if __name__ == "__main__":
    main()
