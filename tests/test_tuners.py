"""Other adapters of PEFT on the layers that an adapter changes: exact, in every state that they can be in."""

import pytest
import torch
from peft import HRAConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from sampling import FILM, assert_close, build, sample
from test_folding import watched
from zoo import pipeline

# of PEFT and its OFT
pytestmark = pytest.mark.filterwarnings("ignore")
LINEAR = ["to_q", "to_v", "time_embedding.linear_2"]  # the last has a bias that the adapter shifts
ALL = [*LINEAR, "conv_out"]
KINDS = {
    "lora": LoraConfig(r=2, target_modules=ALL, init_lora_weights=False),
    "dora": LoraConfig(r=2, target_modules=ALL, init_lora_weights=False, use_dora=True),
    "loha": LoHaConfig(r=2, target_modules=ALL, init_weights=False),
    "lokr": LoKrConfig(r=2, target_modules=ALL, init_weights=False),
    "hra": HRAConfig(r=2, target_modules=ALL, init_weights=False),
    "oft": OFTConfig(r=0, oft_block_size=2, target_modules=LINEAR, init_weights=False),  # of convolutions not exact
    "ia3": IA3Config(target_modules=LINEAR, feedforward_modules=[], init_ia3_weights=False),
}


def add(pipe, kind):
    torch.manual_seed(3)
    pipe.unet.add_adapter(KINDS[kind])


def tuned(pipe):
    return {name: layer for name, layer in pipe.unet.named_modules() if isinstance(layer, BaseTunerLayer)}


def plain(kind):
    """Return a pipeline in whose weights an adapter of PEFT is for good: no layer of it is left."""
    pipe = pipeline()
    add(pipe, kind)
    for name, layer in tuned(pipe).items():
        layer.merge()
        pipe.unet.set_submodule(name, layer.get_base_layer())
    return pipe


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_if_the_base_had_the_merged_weights(kind):
    base, pipe = plain(kind), pipeline()
    adapter = build(pipe, **FILM).attach(base)
    wanted = sample(base)
    adapter.detach()
    adapter.attach(pipe)
    without = sample(pipe)
    add(pipe, kind)
    with watched(pipe.unet) as noted:
        assert_close(sample(pipe), wanted, 1e-5)
    assert noted[0][1] == (kind == "lora")  # what turns or scales a layer would turn or scale what is written into it
    layers = tuned(pipe).values()
    for layer in layers:
        layer.merge()
    with watched(pipe.unet) as noted:
        assert_close(sample(pipe), wanted, 1e-5)
    assert noted[0][1]
    pipe.unet.disable_adapters()  # PEFT takes the weights out again in the next call
    assert_close(sample(pipe), without, 1e-5)
    pipe.unet.enable_adapters()
    assert_close(sample(pipe), wanted, 1e-5)
    assert (wanted - without).abs().max() > 1e-3 * without.abs().max()


def test_a_lora_that_is_swapped_hot_is_the_other_one():
    def state(seed):
        donor = pipeline()
        donor.unet.add_adapter(LoraConfig(r=2, target_modules=ALL))
        generator = torch.Generator().manual_seed(seed)
        found = get_peft_model_state_dict(donor.unet)
        return {f"unet.{name}": 0.3 * torch.randn(value.shape, generator=generator) for name, value in found.items()}

    first, second = pipeline(), pipeline()
    adapter = build(first, **FILM)
    second.load_lora_weights(state(2), adapter_name="style")
    adapter.attach(second)
    wanted = sample(second)
    adapter.detach()
    adapter.attach(first)
    first.load_lora_weights(state(1), adapter_name="style")
    before = sample(first)
    first.load_lora_weights(state(2), adapter_name="style", hotswap=True)
    assert torch.equal(sample(first), wanted) and not torch.allclose(before, wanted)
