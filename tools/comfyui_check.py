"""Try the nodes in ComfyUI's own code: `python tools/comfyui_check.py CHECKOUT`, with ComfyUI's requirements installed.

Tiny models with random weights are sampled by ComfyUI with the nodes, and by diffusers with the adapter attached: both
must tell the same. No GPU, no network, no downloads. `comfyui_server.py` runs the nodes in a real server.
"""
# pyright: reportMissingImports=false

import argparse
import importlib.util
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PASSES: list[int] = []  # rows of each call of a model since the last sampling began
STEPS, SCALE = 4, 5.0


def start(checkout: Path) -> None:
    """Make ComfyUI importable, as its `main.py --cpu` would."""
    sys.argv = [sys.argv[0], "--cpu"]
    for path in (ROOT / "tools", ROOT / "src", checkout):
        sys.path.insert(0, str(path))
    os.chdir(checkout)
    import comfy.options

    comfy.options.enable_args_parsing()
    import_nodes()


def import_nodes() -> None:
    """Import the node pack under a name of its own."""
    spec = importlib.util.spec_from_file_location("guidefold_nodes", ROOT / "comfyui" / "__init__.py")
    assert spec and spec.loader
    module = sys.modules["guidefold_nodes"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


class Absent(Exception):
    """A model that this version of ComfyUI does not know."""


class Bench:
    """A tiny model of one family in ComfyUI and in diffusers, with an adapter that does something."""

    def __init__(self, family: str, *, negative: bool = False, lowvram: bool = False, **settings: Any) -> None:
        import torch
        from guidefold_nodes.naming import candidates

        import comfyui_models as models
        from guidefold.acting.names import first_of
        from guidefold.adapters import ConditionSpec
        from guidefold.config import AdapterConfig
        from guidefold.denoiser import read_call
        from guidefold.keeping import Adapter

        torch.manual_seed(0)
        self.pair = models.FAMILIES[family]()
        self.denoiser = self.pair.denoiser.eval().requires_grad_(False)
        for value in self.denoiser.parameters():  # zero gates and unit norms would hide what is behind them
            if value.dim() == 1 or not value.any():
                value.add_(torch.randn(value.shape) * 0.1)
        try:
            self.model = self.pair.native()
        except TypeError as error:
            raise Absent(f"not in this version ({error})") from error
        native = self.model.diffusion_model
        wanted = dict(self.denoiser.named_parameters())
        names, _ = first_of(candidates(native, self.model.model_config.unet_config), wanted)
        models.fill(native, self.denoiser, names)
        native.register_forward_pre_hook(lambda module, args: PASSES.append(len(args[0])))
        self.patcher = models.low_vram(self.model) if lowvram else models.patcher_of(self.model)
        self.noise = torch.randn(2, *self.pair.latents)
        self.positive, self.other, self.negative = (self.prompt() for _ in range(3))
        full = self.model.model_sampling.timestep(torch.tensor(float(self.model.model_sampling.sigma_max))).reshape(1)
        call, _ = self.pair.call(self.noise, full.expand(2), *self.batched(self.positive, 2))
        spec = ConditionSpec.observe(self.denoiser, read_call(self.denoiser, (), call), negative=negative)
        self.adapter = Adapter.build(self.denoiser, spec, AdapterConfig(width=16, **settings))
        for value in self.adapter.parameters():
            value.data.add_(0.2 * torch.randn(value.shape))

    def prompt(self) -> list[Any]:
        import torch

        pooled = {"pooled_output": torch.randn(1, self.pair.pooled)} if self.pair.pooled else {}
        return [[torch.randn(1, 7, self.pair.tokens), pooled]]

    def batched(self, prompt: list[Any], rows: int) -> tuple[Any, Any]:
        tokens, more = prompt[0]
        pooled = more.get("pooled_output")
        return tokens.expand(rows, -1, -1), None if pooled is None else pooled.expand(rows, -1)

    def sample(self, patcher: Any, cfg: float = SCALE, positive: Any = None, negative: Any = None) -> Any:
        """Return what KSampler returns."""
        import comfy.sample
        import torch

        PASSES.clear()
        conds = (positive or self.positive, negative or self.negative)
        latent = torch.zeros_like(self.noise)
        return comfy.sample.sample(patcher, self.noise, STEPS, cfg, "euler", "normal", *conds, latent, seed=0)

    def folded(self, patcher: Any = None, start: float = 0.0, stop: float = 1.0) -> Any:
        """Return a model with the adapter on it, by the nodes' own way: saved, loaded and applied."""
        import folder_paths
        from guidefold_nodes.nodes import NODE_CLASS_MAPPINGS as NODES

        with tempfile.TemporaryDirectory() as folder:
            self.adapter.save_pretrained(Path(folder) / "mine")
            folder_paths.add_model_folder_path("guidefold", folder, is_default=True)
            folder_paths.filename_list_cache.clear()
            (loaded,) = NODES["GuidefoldLoadAdapter"]().load("mine")
            folder_paths.folder_names_and_paths["guidefold"][0].remove(folder)
        (patched,) = NODES["GuidefoldApplyAdapter"]().apply(patcher or self.patcher, loaded, start, stop)
        return patched

    def expected(self, cfg: float = SCALE, positive: Any = None, negative: Any = None) -> Any:
        """Return what KSampler returns at CFG 1 when diffusers computes, with the adapter at this scale."""
        import torch

        from guidefold.adapters.conditions import conditions_of
        from guidefold.denoiser import read_call

        more = {}
        if self.adapter.spec.negative:
            tokens, pooled = self.batched(negative or self.negative, 1)
            call, _ = self.pair.call(self.noise[:1], torch.zeros(1), tokens, pooled)
            more = {"negative": conditions_of(read_call(self.denoiser, (), call))}

        def compute(_: Any, given: dict[str, Any]) -> Any:
            x, sigma, c = given["input"], given["timestep"], given["c"]
            sampling = self.model.model_sampling
            pooled = c.get("y")
            pooled = None if pooled is None else pooled[:, : self.pair.pooled]
            time = sampling.timestep(sigma).float()
            call, undo = self.pair.call(sampling.calculate_input(sigma, x), time, c["c_crossattn"], pooled)
            call |= residuals(c.get("control"))
            with self.adapter.at(cfg, **more):
                out = undo(self.denoiser(**call, return_dict=False)[0])
            return sampling.calculate_denoised(sigma, out, x)

        plain = self.patcher.clone()
        plain.set_model_unet_function_wrapper(compute)
        self.adapter.attach(self.denoiser)
        try:
            return self.sample(plain, 1.0, positive, negative)
        finally:
            self.adapter.detach()


def residuals(control: Any) -> dict[str, Any]:
    """Return what a ControlNet adds, as diffusers is given it."""
    if not control:
        return {}
    return {
        "down_block_additional_residuals": tuple(control["output"]),
        "mid_block_additional_residual": control["middle"][0],
    }


def close(found: Any, wanted: Any) -> str:
    """Return the largest difference as text. Raises AssertionError unless it is rounding."""
    largest, size = float((found - wanted).abs().max()), float(wanted.abs().max())
    assert largest <= 5e-5 * size, f"differs by {largest:.1e} of {size:.2g}"
    return f"{largest:.0e} of {size:.2g}"


def same(found: Any, wanted: Any) -> None:
    assert bool((found == wanted).all()), f"differs by {float((found - wanted).abs().max()):.1e}"


def weights(bench: Bench) -> dict[str, Any]:
    return {name: value.clone() for name, value in bench.model.state_dict().items()}


def unchanged(bench: Bench, before: dict[str, Any]) -> None:
    after = bench.model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        same(after[name], value)


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


def unload() -> None:
    import comfy.model_management

    comfy.model_management.unload_all_models()


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


@contextmanager
def silence() -> Iterator[None]:
    import logging
    import warnings

    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
