"""Try the nodes in ComfyUI's own code: `python tools/comfyui_check.py CHECKOUT`, with ComfyUI's requirements installed.

Tiny models with random weights are sampled by ComfyUI with the nodes, and by diffusers with the adapter attached: both
must tell the same. No GPU, no network, no downloads. `comfyui_server.py` runs the nodes in a real server.
"""
# pyright: reportMissingImports=false

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from comfyui_bench import (
    PASSES,
    SCALE,
    STEPS,
    Absent,
    Bench,
    close,
    same,
    silence,
    start,
    unchanged,
    unload,
    weights,
)


def family(name: str, **settings: Any) -> Callable[[], str]:
    """Return a check that a family samples alike in one pass, and is left as it was."""

    def check() -> str:
        bench = Bench(name, **settings)
        before = weights(bench)
        guided = bench.sample(bench.patcher)
        assert set(PASSES) == {4}, PASSES
        bare = bench.sample(bench.patcher, 1.0)
        patched = bench.folded()
        one = bench.sample(patched)
        assert PASSES == [2] * STEPS, PASSES
        told = close(one, bench.expected())
        assert float((one - bare).abs().max()) > 1e-2 * float(bare.abs().max()), "the adapter did nothing"
        same(bench.sample(patched, 1.0), bare)
        same(bench.sample(bench.patcher), guided)
        unchanged(bench, before)
        return told

    return check


def lora(bench: Bench) -> dict[str, Any]:
    """Return a LoRA file's weights for a UNet's attentions and feed-forwards, and a change of a norm."""
    import torch

    found = {}
    for name, module in bench.denoiser.named_modules():
        if isinstance(module, torch.nn.Linear) and "transformer_blocks" in name:
            key = "lora_unet_" + name.replace(".", "_")
            found[f"{key}.lora_down.weight"] = torch.randn(2, module.in_features) * 0.1
            found[f"{key}.lora_up.weight"] = torch.randn(module.out_features, 2) * 0.1
    return found


def loras(lowvram: bool) -> Callable[[], str]:
    """Return a check of LoRA before and after the node, fully loaded or patched as layers are called."""

    def check() -> str:
        import comfy.sd
        import torch

        bench = Bench("SD 1.5", lowvram=lowvram)
        before, file = weights(bench), lora(bench)
        first, _ = comfy.sd.load_lora_for_models(bench.patcher, None, file, 0.8, 0)
        norm = "diffusion_model.input_blocks.1.0.in_layers.0.weight"
        first.add_patches({norm: ("diff", (torch.full((32,), 0.3),))})
        a = bench.sample(bench.folded(first))
        if lowvram:
            assert any(getattr(module, "weight_function", None) for module in bench.model.modules()), "all was loaded"
        second = bench.folded()
        second, _ = comfy.sd.load_lora_for_models(second, None, file, 0.8, 0)
        second.add_patches({norm: ("diff", (torch.full((32,), 0.3),))})
        same(bench.sample(second), a)
        for name, module in bench.denoiser.named_modules():
            key = "lora_unet_" + name.replace(".", "_")
            if f"{key}.lora_up.weight" in file:
                module.weight += 0.8 * file[f"{key}.lora_up.weight"] @ file[f"{key}.lora_down.weight"]
        bench.denoiser.down_blocks[0].resnets[0].norm1.weight += 0.3  # pyright: ignore
        told = close(a, bench.expected())
        unload()
        unchanged(bench, before)
        return told

    return check


def controlnet() -> str:
    """A ControlNet beside the adapter."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops
    import torch

    bench = Bench("SD 1.5")
    config = {**bench.pair.config, "hint_channels": 3}
    config.pop("out_channels")
    control = comfy.cldm.cldm.ControlNet(**config, operations=comfy.ops.disable_weight_init).eval()
    for value in control.parameters():
        value.data.normal_(std=0.05)
    net = comfy.controlnet.ControlNet(control, load_device=torch.device("cpu"))
    net.set_cond_hint(torch.rand(1, 3, 128, 128), 1.0, (0.0, 1.0))
    tokens, more = bench.positive[0]
    positive = [[tokens, {**more, "control": net, "control_apply_to_uncond": True}]]
    found, without = bench.sample(bench.folded(), positive=positive), bench.sample(bench.folded())
    assert float((found - without).abs().max()) > 1e-3, "the ControlNet did nothing"
    return close(found, bench.expected(positive=positive))


def combined() -> str:
    """Two prompts combined, which an adapter that sees the prompt must tell apart."""
    bench = Bench("SD 1.5", see_condition=True)
    both = [*bench.positive, *bench.other]
    found = bench.sample(bench.folded(), positive=both)
    assert sum(PASSES) == 4 * STEPS, PASSES
    return close(found, bench.expected(positive=both))


def negatives(name: str) -> Callable[[], str]:
    def check() -> str:
        bench = Bench(name, negative=True)
        found = bench.sample(bench.folded())
        other = bench.sample(bench.folded(), negative=bench.other)
        assert float((found - other).abs().max()) > 1e-3, "the negative prompt did nothing"
        close(other, bench.expected(negative=bench.other))
        return close(found, bench.expected())

    return check


def exported(name: str) -> Callable[[], str]:
    """Return a check that ComfyUI reads a LoRA file as what it is: all of it, and with the same effect."""

    def check() -> str:
        import comfy.sd

        from guidefold.keeping.export import foldable, format_for, named, pairs_of

        bench = Bench(name, rank=2)
        bench.adapter = foldable(bench.adapter, None)
        pairs = pairs_of(bench.adapter, SCALE)
        tensors = named(pairs, bench.denoiser, format_for(bench.denoiser, None))
        patched, _ = comfy.sd.load_lora_for_models(bench.patcher, None, tensors, 1.0, 0)
        loaded = sum(map(len, patched.patches.values()))
        assert loaded == len(pairs), f"{loaded} of {len(pairs)} layers"
        bare, found, wanted = bench.sample(bench.patcher, 1.0), bench.sample(patched, 1.0), bench.expected()
        off = float((found - wanted).norm() / (wanted - bare).norm())
        assert off < 0.01, f"{off:.4f} of the effect"
        return f"{loaded} layers, {off:.0e} of the effect off"

    return check


def interval() -> str:
    """Where the adapter does not act, the sampler guides with two passes; from 0 to 1 it is never more than one."""
    bench = Bench("SD 1.5")
    found = bench.sample(bench.folded(stop=0.5))
    assert PASSES == [2, 2, 4, 4], PASSES
    bench.sample(bench.folded(start=0.5))
    assert PASSES == [4, 4, 2, 2], PASSES
    assert not bool((found == bench.sample(bench.folded())).all())
    return "2, 2, 4, 4 rows"


def refusals() -> str:
    """What does not fit is told in one line, before anything is changed."""
    bench, other = Bench("SD 1.5"), Bench("SDXL")
    before, told = weights(bench), []
    for act in (
        lambda: other.folded(bench.patcher),
        lambda: bench.folded(bench.folded()),
        lambda: bench.folded(start=0.5, stop=0.5),
        lambda: Bench("SD 1.5", design="offset").folded(),
    ):
        try:
            act()
        except Exception as error:
            told.append(str(error))
    assert len(told) == 4 and all("\n" not in text for text in told), told
    unchanged(bench, before)
    return told[0]


def half() -> str:
    """A model in bfloat16, as most are kept."""
    import torch

    bench = Bench("SD 1.5")
    wanted = bench.expected()
    bench.model.diffusion_model.to(torch.bfloat16)
    bench.model.diffusion_model.dtype = torch.bfloat16
    before = weights(bench)
    found = bench.sample(bench.folded())
    off, size = float((found - wanted).norm()), float(wanted.norm())
    unchanged(bench, before)
    assert off < 0.05 * size, f"{off / size:.3f}"
    return f"{off / size:.3f} of its length from float32"


def checks() -> Iterator[tuple[str, Callable[[], str]]]:
    import comfyui_models as models

    for name in models.FAMILIES:
        yield name, family(name)
    yield "SDXL, prompt unseen", family("SDXL", see_condition=False)
    yield "SD 1.5, deltas of rank 2", family("SD 1.5", rank=2)
    yield "Flux, deltas of rank 2", family("Flux", rank=2)
    yield "LoRA before and after", loras(lowvram=False)
    yield "LoRA, low VRAM", loras(lowvram=True)
    yield "ControlNet", controlnet
    yield "two prompts combined", combined
    yield "negative prompt, SD 1.5", negatives("SD 1.5")
    yield "negative prompt, SDXL", negatives("SDXL")
    for name in ("SD 1.5", "SD 2.1", "SDXL", "SD3", "Flux", "Qwen-Image", "Wan", "Z-Image"):
        yield f"LoRA file, {name}", exported(name)
    yield "start and stop", interval
    yield "bfloat16", half
    yield "refusals", refusals


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="ComfyUI's folder, the one with main.py")
    parser.add_argument("--only", default="", help="run the checks whose names hold this")
    options = parser.parse_args()
    start(options.checkout.resolve())
    import torch
    from comfyui_version import __version__ as version

    print(f"ComfyUI {version}, torch {torch.__version__}")
    failed = 0
    with torch.no_grad(), silence():
        for name, check in checks():
            if options.only not in name:
                continue
            began = time.perf_counter()
            try:
                told = check()
            except Absent as absent:
                told = str(absent)
            except Exception:
                failed += 1
                told = "FAILED\n" + traceback.format_exc(limit=-6)
            print(f"{name}: {told} ({time.perf_counter() - began:.1f} s)", flush=True)
            unload()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
