"""What is observed of a pipeline is enough: in the precision it computes in, and for as many steps as it takes."""

import pytest
import torch
from support.case import build

from guidefold.capture import observe

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("name", ["CogVideoXPipeline", "ZImagePipeline"])
def test_a_pipeline_that_upcasts_before_its_scheduler_is_held_to_its_denoisers_precision(name):
    case = build(name)
    case.pipe.to(torch.bfloat16)
    seen = observe(case.pipe, **case.call)
    assert seen.guided.steps[0].received.dtype == torch.float32 and seen.dtype == torch.bfloat16
    assert 1e-3 < seen.result_error < 5e-2
    case.pipe.to(torch.float32)
    seen = observe(case.pipe, **case.call)
    assert seen.dtype == torch.float32 and seen.result_error < 1e-3
