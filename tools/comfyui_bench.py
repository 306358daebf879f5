"""A tiny model in ComfyUI and in diffusers, with an adapter on it, for `comfyui_check.py` and `comfyui_server.py`."""
# pyright: reportMissingImports=false

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
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
    """Return the largest difference in terms of the largest value. Raises AssertionError unless it is rounding."""
    off = float((found - wanted).abs().max() / wanted.abs().max())
    assert off <= 5e-5, f"differs by {off:.1e} of the largest value"
    return f"{off:.0e}"


def same(found: Any, wanted: Any) -> None:
    assert bool((found == wanted).all()), f"differs by {float((found - wanted).abs().max()):.1e}"


def weights(bench: Bench) -> dict[str, Any]:
    return {name: value.clone() for name, value in bench.model.state_dict().items()}


def unchanged(bench: Bench, before: dict[str, Any]) -> None:
    after = bench.model.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        same(after[name], value)


def unload() -> None:
    import comfy.model_management

    comfy.model_management.unload_all_models()


@contextmanager
def silence() -> Iterator[None]:
    import logging
    import warnings

    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
