"""A store knows all that shapes its teacher: LoRAs, their scales, what is off or fused, image prompts, words, FreeU."""

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from peft import LoraConfig
from zoo import message_of, pipeline

from guidefold.config import TrainConfig, TrajectoryConfig
from guidefold.distillation.run import open_source, record
from guidefold.distillation.states import told_by
from guidefold.errors import StoreError
from guidefold.trajectories.additions import added_to, additions
from guidefold.trajectories.store import Store

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

PROMPTS = ["a red fox", "a blue cat"]
CONFIG = TrajectoryConfig(trajectories=2, sampling_steps=2, keep=1, record_batch=2, shard=2)
TRAIN = TrainConfig(steps=1, batch_size=2, validation=0)


def styled(name="style", seed=0):
    """Return a pipeline with a LoRA of the same weights every time."""
    pipe = pipeline()
    add(pipe, name, seed)
    return pipe


def add(pipe, name, seed=0):
    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    pipe.unet.add_adapter(config, adapter_name=name)


def test_what_is_added_is_told_by_name_scale_and_weights():
    assert additions(pipeline()) == {}
    pipe, same = styled(), styled()
    found = additions(pipe)
    assert found == additions(same) and found["unet"]["loras"]["style"]["scale"] == 1.0
    assert added_to(styled(seed=1).unet)["loras"]["style"]["weights"] != found["unet"]["loras"]["style"]["weights"]
    add(pipe, "other")
    pipe.unet.set_adapters(["style", "other"], [0.5, 2.0])
    assert {name: one["scale"] for name, one in added_to(pipe.unet)["loras"].items()} == {"other": 2.0, "style": 0.5}
    pipe.unet.disable_lora()
    assert added_to(pipe.unet) == {"disabled": ["other", "style"]}
    same.unet.fuse_lora()
    assert added_to(same.unet)["fused"] == ["style"]
    same.unet.unfuse_lora()
    assert additions(same) == found


def test_image_prompts_are_told_by_weights_and_scale():
    told = []
    for seed, scale in ((0, 1.0), (0, 0.5), (1, 1.0)):
        pipe = pipeline()
        torch.manual_seed(seed)
        one = IPAdapterAttnProcessor2_0(8, cross_attention_dim=24, num_tokens=(4,), scale=scale)
        pipe.unet.set_attn_processor(
            {name: one if number == 1 else AttnProcessor2_0() for number, name in enumerate(pipe.unet.attn_processors)}
        )
        (seen,) = added_to(pipe.unet)["processors"].values()
        assert seen["kind"] == "IPAdapterAttnProcessor2_0" and seen["scale"] == [scale]
        told.append(seen)
    assert told[0]["weights"] == told[1]["weights"] != told[2]["weights"]


def test_words_and_free_u_are_told():
    told = []
    for value in (1.0, 2.0):
        pipe = pipeline()
        pipe.load_textual_inversion({"<fox>": torch.full((1, 24), value)}, token="<fox>")
        told.append(additions(pipe)["tokenizer"]["<fox>"])
    assert told[0] != told[1]
    pipe = pipeline()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    seen = list(added_to(pipe.unet)["free_u"].values())
    assert seen and all(one == {"s1": 0.9, "s2": 0.2, "b1": 1.2, "b2": 1.4} for one in seen)
    pipe.disable_freeu()
    assert additions(pipe) == {}


def test_another_state_neither_goes_on_with_a_store_nor_trains_from_it(tmp_path):
    pipe = styled()
    store = record(pipe, PROMPTS, tmp_path / "store", CONFIG)
    assert open_source(styled(), store.folder, None, TRAIN, CONFIG, {}).identity

    def again(other):
        return message_of(StoreError, lambda: record(other, PROMPTS, store.folder, CONFIG))

    def use(other):
        return message_of(StoreError, lambda: open_source(other, store.folder, None, TRAIN, CONFIG, {}))

    pipe.unet.set_adapters(["style"], [0.5])
    assert "was made with added.unet.loras.style.scale = 1.0, this run has added.unet.loras.style.scale = 0.5" in (
        again(pipe)
    )
    assert "a model with loras.style.scale = 1.0, now it has loras.style.scale = 0.5; set it as it was" in use(pipe)
    pipe.unet.disable_lora()
    assert "a model with disabled = nothing, now it has disabled = ['style']" in use(pipe)
    assert "was made with added = {" in again(pipeline()) and "a model with loras = {" in use(pipeline())


SPEC = dict(tokens={"words": 4}, vectors={}, labels={}, timestep="timestep", timestep_scale=1.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"timestep_scale": 0}, "timestep_scale is 0; it must be a finite number above 0"),
        ({"timestep_scale": float("nan")}, "timestep_scale is nan"),
        ({"anchors": 0}, "anchors is 0; it must be a whole number from 1 to 1"),
        ({"anchors": -1}, "anchors is -1"),
        ({"anchors": 2}, "anchors is 2"),
        ({"dials": [["guidance_scale", float("nan")]]}, "the scale guidance_scale is off at nan"),
        ({"dials": 3}, "not iterable"),
        ({"unknown": 3}, "unexpected keyword argument 'unknown'"),
        (None, "no 'spec'"),
    ],
)
def test_conditions_that_make_no_sense_are_told(change, told, tmp_path):
    spec = {} if change is None else {"spec": {**SPEC, **change}}
    store = Store.create(tmp_path, header={"model": "abc", "config": CONFIG.to_dict(), "static": {}, **spec})
    message = message_of(StoreError, lambda: told_by(Store.open(store.folder)))
    assert told in message and "is damaged" in message and "record again in a new folder" in message
    assert told_by(Store(folder=tmp_path, header={"spec": SPEC, "static": {"a": {"tuple": [1]}}}))[1] == {"a": (1,)}
