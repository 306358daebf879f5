"""Sections of the page on what a process holds and what compiling brings; see `tables`."""

from typing import Any

from pages import interval_of, made, table


def compiling(entry: dict[str, Any]) -> str:
    rows = []
    for name, one in entry["results"].items():
        for what in ("use", "training"):
            times = one[what]
            ms = [f"{times['milliseconds'][kind]['median']:.0f}" for kind in ("bare", "adapter", "compiled")]
            ratios = [interval_of(times[ratio]) for ratio in ("adapter_over_bare", "compiled_over_adapter")]
            label = f"{name}:{one['batch']}, {one['parameters'] / 1e6:.0f} M"
            rows.append((label, what, *ms, *ratios))
    text = (
        "Processor time of a step with the default adapter, repeated blocks as they are and compiled; training is a "
        "forward and a backward pass, of the bare model to its latents. `demo` has the bundled teacher's sizes, its "
        "repeated blocks are few, its transformer blocks; `flux` is of Flux's kind. Quartiles of the ratios within a "
        f"round. {made(entry)}\n\n"
    )
    columns = ("denoiser:batch", "", "bare ms", "adapter ms", "compiled ms", "adapter / bare", "compiled / adapter")
    return text + table(columns, rows)


def memory(entry: dict[str, Any]) -> str:
    results = entry["results"]
    rows = [
        ("libraries", f"{results['imports']:.2f}"),
        ("and the weights", f"{results['with weights']:.2f}"),
        ("at most", f"{results['peak']:.2f}"),
    ]
    text = (
        "The most memory that a process held, of one optimizer step of two states in two parts and a validation of "
        "one: SDXL's published sizes, random bfloat16 weights, 128 x 128 latents, gradient checkpointing, the default "
        f"adapter ({results['adapter parameters'] / 1e6:.0f} M). This CPU multiplies bfloat16 slowly, so each layer "
        "computed in float32: activations, and a block's weights while it runs, took twice what they take in bfloat16, "
        f"for which [5.8 GiB and the libraries](recipes.md) are computed. {made(entry)}\n\n"
    )
    return text + table(("resident", "GiB"), rows)


def recording_memory(entry: dict[str, Any]) -> str:
    results = entry["results"]
    parts = ", ".join(f"{name} {size:.2f}" for name, size in results["parts"].items())
    rows = [
        ("libraries", f"{results['imports']:.2f}"),
        ("and the weights", f"{results['with weights']:.2f}"),
        ("at most", f"{results['peak']:.2f}"),
    ]
    text = (
        f"The same of recording a trajectory with the whole pipeline (GiB of weights: {parts}), latents of "
        f"{results['latents']}, larger ones being slow here. The parts were brought to the device in turn, as "
        "`--offload model` does it, but the device being the CPU all of them stayed in the process; a GPU holds the "
        f"largest alone. {made(entry)}\n\n"
    )
    return text + table(("resident", "GiB"), rows)
