"""Pipelines whose prompts differ in length are recorded and trained on, a length at a time."""

import pytest
import torch
from support.case import build
from zoo import shake

from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.distillation.run import record, train
from guidefold.errors import ModelError
from guidefold.keeping import Adapter
from guidefold.trajectories.dataset import StateSet
from guidefold.trajectories.recorder import Recorder

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPTS = ["a fox", "a red fox in the snow", "a cat", "an owl, seen from behind a tree", "two", "ten"]
ADAPTER = AdapterConfig(rank=2, width=16)
TRAIN = TrainConfig(steps=6, batch_size=2, validation=1, validate_every=3, checkpoint_every=3)


def trajectory(**more) -> TrajectoryConfig:
    return TrajectoryConfig(trajectories=6, sampling_steps=2, keep=2, scale_max=4.0, **more)


CASES = {
    "ZImagePipeline": {"height": 32, "width": 32},
    "QwenImagePipeline": {"height": 32, "width": 32, "negative_prompt": " "},
}


@pytest.mark.parametrize("name", CASES)
def test_an_adapter_is_trained_on_prompts_of_any_length(name, tmp_path):
    pipe, one_by_one = build(name).pipe, trajectory(record_batch=1, shard=1)
    store = record(pipe, PROMPTS, tmp_path / "store", one_by_one, **CASES[name])
    assert len(StateSet([store]).groups) > 1
    adapter = train(pipe, tmp_path / "run", store=store.folder, adapter=ADAPTER, config=TRAIN)
    assert adapter.trained["recovered"] is not None


def test_in_a_batch_they_are_refused(tmp_path):
    pipe = build("QwenImagePipeline").pipe
    with pytest.raises(ModelError, match="record with record_batch 1 and shard 1"):
        record(pipe, PROMPTS, tmp_path, trajectory(record_batch=2), **CASES["QwenImagePipeline"])


def test_a_pipeline_that_wants_a_negative_prompt_says_so(tmp_path):
    pipe = build("QwenImagePipeline").pipe
    with pytest.raises(ModelError, match="some pipelines want a negative_prompt for guidance to be on"):
        record(pipe, PROMPTS, tmp_path, trajectory(record_batch=1), height=32, width=32)


def test_images_of_a_batch_come_out_as_alone_where_sequences_come_first():
    case = build("ErnieImagePipeline")
    pipe, call = case.pipe, {**case.call, "negative_prompt": None, "output_type": "latent"}
    more = {name: call[name] for name in ("height", "width")}
    recorder = Recorder(pipe, PROMPTS, trajectory(record_batch=2), **more)
    adapter = Adapter.build(recorder.denoiser, recorder.spec, ADAPTER)
    shake(adapter)
    adapter.attach(pipe)
    prompts, scales = ["a red fo", "a red fz"], [2.0, 3.5]  # as many tokens, an even number

    def sample(prompt, scale, *seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipe(**{**call, "prompt": prompt, "guidance_scale": scale}, generator=generators)[0]

    alone = [sample(prompt, scale, seed) for seed, (prompt, scale) in enumerate(zip(prompts, scales, strict=True))]
    torch.testing.assert_close(sample(prompts, scales, 0, 1), torch.cat(alone), rtol=1e-3, atol=1e-3)
