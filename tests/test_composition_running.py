"""An adapter beside every way of running a pipeline cheaper: precision, offloading, caches, fusing, compiling."""

from collections.abc import Callable, Iterator

import accelerate
import pytest
import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
    WanTransformer3DModel,
)
from diffusers.hooks import SeaCacheConfig
from support.case import Case
from test_composition import build, keeps_the_laws, of, sample, sd
from torch import nn
from torch._dynamo.testing import CompileCounter
from zoo import shake

from guidefold.adapters import layers

# of torch's quantisation, of diffusers' video pipelines and of the compiler, with or without an adapter
pytestmark = pytest.mark.filterwarnings("ignore")
CPU = torch.device("cpu")
STEPS = 6  # enough for every cache to leave some out
WAN = of("WanPipeline", num_inference_steps=STEPS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    # attached first, the adapter keeps its own precision
    keeps_the_laws(sd, lambda pipe: pipe.to(dtype), changes=True, tolerance=0.1)


def test_int8_linear_layers():
    def quantise(pipe):
        torch.ao.quantization.quantize_dynamic(pipe.unet, {nn.Linear}, torch.qint8, inplace=True)

    keeps_the_laws(sd, quantise, changes=True, both_orders=False)


def group_offload(level: str) -> Callable:
    more = {"num_blocks_per_group": 1} if level == "block_level" else {}
    return lambda pipe: pipe.unet.enable_group_offload(CPU, CPU, offload_type=level, **more)


RUNNING = {
    "model-offload": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    # what enable_sequential_cpu_offload does to every component
    "sequential-offload": lambda pipe: accelerate.cpu_offload(pipe.unet, CPU),
    "group-offload-blocks": group_offload("block_level"),
    "group-offload-leaves": group_offload("leaf_level"),
    "fused-qkv": lambda pipe: pipe.fuse_qkv_projections(vae=False),
    "unfused-qkv": lambda pipe: (pipe.fuse_qkv_projections(vae=False), pipe.unfuse_qkv_projections(vae=False)),
}


@pytest.mark.parametrize("how", RUNNING)
def test_ways_of_running_that_change_nothing(how):
    keeps_the_laws(sd, RUNNING[how], changes=False)


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "WanImageToVideoPipeline"])
def test_fused_projections_of_transformers(name):
    keeps_the_laws(of(name), lambda pipe: pipe.transformer.fuse_qkv_projections(), changes=False)


CACHES = {
    "first-block": lambda now: FirstBlockCacheConfig(threshold=10.0),
    "pyramid-attention": lambda now: PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 1001),
        current_timestep_callback=now,
    ),
    # its other half leaves out the pass that there is none of
    "faster": lambda now: FasterCacheConfig(
        spatial_attention_timestep_skip_range=(-1, 900), current_timestep_callback=now, is_guidance_distilled=True
    ),
    "mag": lambda now: MagCacheConfig(threshold=10.0, num_inference_steps=STEPS, mag_ratios=torch.ones(STEPS)),
    "sea": lambda now: SeaCacheConfig(threshold=10.0),
    "taylor-seer": lambda now: TaylorSeerCacheConfig(
        cache_interval=3, disable_cache_before_step=1, cache_identifiers=[r"blocks\.\d+"]
    ),
}


@pytest.mark.parametrize("name", CACHES)
def test_caches(name):
    def cache(pipe):
        pipe.transformer.enable_cache(CACHES[name](lambda: pipe.current_timestep))

    keeps_the_laws(WAN, cache, changes=True)


@pytest.mark.parametrize("name", ["pyramid-attention", "faster"])
def test_what_a_cache_keeps_is_not_changed(name, monkeypatch):
    (adapter, _), case = build(WAN), WAN()
    shake(adapter)
    adapter.attach(case.pipe)
    case.pipe.transformer.enable_cache(CACHES[name](lambda: case.pipe.current_timestep))
    cached, add = sample(case), layers.add_product
    monkeypatch.setattr(layers, "add_product", lambda output, *more: add(output.clone(), *more))
    assert torch.equal(sample(case), cached)


def deep() -> Case:
    """Return a pipeline with more blocks than the compiler makes graphs of one function."""
    case = of("WanPipeline")()
    torch.manual_seed(0)
    config = {**case.pipe.transformer.config, "num_layers": torch._dynamo.config.recompile_limit + 2}
    case.pipe.transformer = WanTransformer3DModel(**config).eval().requires_grad_(False)
    return case


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiles(make, compile_it, *, fused=False, **settings) -> int:
    """Check that a compiled pipeline does what it did before, and return its graphs, the same at every scale."""
    (adapter, _), case = build(make, **settings), make()
    shake(adapter)
    adapter.attach(case.pipe)
    scales = (2.0, 7.5, 1.0)
    expected = [sample(case, guidance_scale=scale) for scale in scales]
    if fused:
        case.pipe.transformer.fuse_qkv_projections()
    counter, counts = CompileCounter(), set()
    compile_it(case.pipe, counter)
    for scale, images in zip(scales, expected, strict=True):
        torch.testing.assert_close(sample(case, guidance_scale=scale), images, rtol=1e-3, atol=1e-3)
        counts.add(counter.frame_count)
    (graphs,) = counts
    return graphs


def whole(pipe, backend) -> None:
    pipe.transformer = torch.compile(pipe.transformer, fullgraph=True, backend=backend)


@pytest.mark.parametrize("fused", [False, True])
def test_a_pipeline_compiles_whole_and_once_for_all_scales(fresh_compiler, fused):
    assert compiles(of("WanPipeline"), whole, fused=fused) == 1


@pytest.mark.parametrize("rank", [0, 2], ids=["folded", "live"])
def test_equal_blocks_share_compiled_graphs(fresh_compiler, rank):
    def blocks(pipe, backend):
        pipe.transformer.compile_repeated_blocks(fullgraph=True, backend=backend)

    assert compiles(deep, blocks, rank=rank) == (1 if rank == 0 else 2)  # the first block's input has other strides
