"""A denoiser compiles whole with an adapter attached, and once for all guidance scales."""

import copy
from collections.abc import Iterator

import pytest
import torch
from test_laws import build, run
from torch._dynamo.testing import CompileCounter

from guidefold.adapters.layers import DESIGNS

CASES = [("sd3", "film"), *(("dit", design) for design in DESIGNS if design != "lora")]
GRAPHS = 1  # the hooks of the outermost module run outside


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(("name", "design"), CASES)
def test_it_compiles_whole_and_once_for_all_scales(name, design):
    denoiser, call, adapter = build(name, design)
    adapter.attach(denoiser)
    expected = {}
    for scale in (2.0, 7.5, 1.0):
        with adapter.at(scale):
            expected[scale] = run(denoiser, call)
    counter = CompileCounter()
    compiled = torch.compile(denoiser, fullgraph=True, backend=counter)
    for scale, prediction in expected.items():
        adapter.guidance_scale = scale
        torch.testing.assert_close(run(compiled, call), prediction, rtol=1e-4, atol=1e-4)
        assert counter.frame_count == GRAPHS


@torch._dynamo.config.patch(skip_nnmodule_hook_guards=True)
def test_a_graph_of_the_bare_model_is_not_taken_for_one_with_an_adapter():
    denoiser, call, adapter = build("dit")
    twin = copy.deepcopy(denoiser)
    bare = torch.compile(denoiser, backend="eager")
    expected_bare = run(bare, call)
    adapter.attach(twin).guidance_scale = 4.0
    expected = run(twin, call)
    adapted = torch.compile(twin, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(run(bare, call), expected_bare)
        torch.testing.assert_close(run(adapted, call), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler looks at it
def test_a_compiled_student_learns():
    denoiser, call, adapter = build("dit")
    adapter.attach(denoiser).guidance_scale = 3.0
    compiled = torch.compile(denoiser, fullgraph=True, backend="aot_eager")
    compiled(**call, return_dict=False)[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapter.parameters())
