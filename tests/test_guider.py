"""AdapterGuidance: an adapter wherever diffusers takes a guider, in modular pipelines too."""

import copy

import pytest
import torch
from diffusers import ClassifierFreeGuidance, modular_pipelines
from diffusers.guiders.guider_utils import GuiderOutput
from support.case import Case, build
from torch import nn
from zoo import make, shake

from guidefold import Adapter, AdapterGuidance
from guidefold.acting.swaps import Swaps
from guidefold.adapters.conditions import ConditionSpec
from guidefold.config import AdapterConfig
from guidefold.denoiser import argument_names, find_denoiser, read_call
from guidefold.errors import InputError, ModelError

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CASES = {
    "StableDiffusionXLAutoBlocks": "StableDiffusionXLPipeline",
    "WanBlocks": "WanPipeline",
    "ZImageAutoBlocks": "ZImagePipeline",
    "QwenImageAutoBlocks": "QwenImagePipeline",
}


class Conditional(ClassifierFreeGuidance):
    """Runs both branches, and answers with the conditional one: at scale 1 some pipelines of diffusers raise."""

    def forward(self, pred_cond, pred_uncond=None):
        return GuiderOutput(pred=pred_cond, pred_cond=pred_cond, pred_uncond=pred_uncond)


def modular(blocks: str, case: Case):
    """Return a modular pipeline with the components of a plain one, and a call of it."""
    pipe = getattr(modular_pipelines, blocks)().init_pipeline()
    parts = {name: part for name, part in case.pipe.components.items() if name in pipe.component_names}
    pipe.update_components(**parts)
    pipe.set_progress_bar_config(disable=True)
    known = {item.name for item in pipe.blocks.inputs}
    call = {name: value for name, value in case.call.items() if name in known and name != "output_type"}
    return pipe, call | {"prompt": "a red fox", "output": "latents"}


def sample(pipe, call, guider):
    """Return latents, and the rows of every call of the denoiser."""
    pipe.update_components(guider=guider)
    rows, denoiser = [], find_denoiser(pipe)

    def count(module, args, kwargs):
        rows.append(read_call(module, args, kwargs))

    handle = denoiser.register_forward_pre_hook(count, with_kwargs=True)
    with torch.no_grad():
        latents = pipe(**call, generator=torch.Generator().manual_seed(0))
    handle.remove()
    return latents, rows


def build_adapter(denoiser, call, **more) -> Adapter:
    torch.manual_seed(0)
    return Adapter.build(denoiser, ConditionSpec.observe(denoiser, call, **more), AdapterConfig(rank=2, width=16))


@pytest.mark.parametrize("blocks", CASES)
def test_an_adapter_halves_the_passes_of_a_modular_pipeline(blocks):
    pipe, call = modular(blocks, build(CASES[blocks]))
    bare, doubled = sample(pipe, call, Conditional(guidance_scale=4.0))
    adapter = build_adapter(find_denoiser(pipe), doubled[0])
    guider = AdapterGuidance(guidance_scale=4.0, adapter=adapter)
    same, folded = sample(pipe, call, guider)
    assert len(doubled) == 2 * len(folded) == 6
    assert torch.equal(same, bare)
    for layer in adapter.layers:
        nn.init.normal_(layer.up, std=0.05)
    changed, _ = sample(pipe, call, guider)
    assert changed.isfinite().all() and not torch.equal(changed, bare)
    if blocks != "WanBlocks":  # which raises for any guider that is off
        guider.disable()
        disabled, _ = sample(pipe, call, guider)
        assert guider._enabled or torch.equal(disabled, bare)  # some pipelines turn every guider on again
    again, _ = sample(pipe, call, Conditional(guidance_scale=4.0))
    assert torch.equal(again, bare)  # outside this guider's calls the adapter does nothing


@pytest.mark.parametrize("blocks", CASES)
def test_the_negative_prompt_reaches_the_adapter(blocks):
    pipe, call = modular(blocks, build(CASES[blocks]))
    _, doubled = sample(pipe, call, Conditional(guidance_scale=4.0))
    adapter, seen = build_adapter(find_denoiser(pipe), doubled[0], negative=True), []
    guider = AdapterGuidance(guidance_scale=4.0, adapter=adapter)
    adapter.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    for negative in ("blurry", "a red fox"):
        sample(pipe, call | {"negative_prompt": negative}, guider)
    assert len(seen) == len(doubled)  # twice as many runs, half as many passes
    wanted = [name for name in (*adapter.spec.tokens, *adapter.spec.vectors) if name.startswith("negative.")]
    first, last = (
        [torch.equal(one[n], one[n.removeprefix("negative.")]) for n in wanted] for one in seen[:: len(seen) - 1]
    )
    assert not all(first) and all(last)


def test_what_a_pipeline_casts_is_swapped_and_what_is_not_found_is_told():
    denoiser, call = make("sd")
    prompt = call["encoder_hidden_states"]
    swaps = Swaps([(prompt.double(), -prompt.double())])
    found = swaps.conditions(denoiser, (), call, argument_names(type(denoiser)))
    assert torch.equal(found["encoder_hidden_states"], -prompt) and torch.equal(found["sample"], call["sample"])
    for nothing in (Swaps(), Swaps([(prompt.double() + 1, prompt)])):
        with pytest.raises(ModelError, match="the guider's negative prompt does not reach the denoiser"):
            nothing.conditions(denoiser, (), call, argument_names(type(denoiser)))


def shaken(blocks="StableDiffusionXLAutoBlocks"):
    """Return a modular pipeline, a call, an adapter that does something, and the latents without it."""
    pipe, call = modular(blocks, build(CASES[blocks]))
    bare, doubled = sample(pipe, call, Conditional(guidance_scale=4.0))
    adapter = build_adapter(find_denoiser(pipe), doubled[0])
    shake(adapter)
    return pipe, call, adapter, bare


class Scheduled(AdapterGuidance):
    """Guides the second step alone, by its scale."""

    def set_state(self, step, num_inference_steps, timestep):
        super().set_state(step, num_inference_steps, timestep)
        self.guidance_scale = 4.0 if step == 1 else 1.0


def test_start_and_stop_are_those_of_diffusers_guiders():
    pipe, call, adapter, bare = shaken()
    wanted, calls = sample(pipe, call, Scheduled(adapter=adapter))
    assert len(calls) == 3
    # of three steps the second, as ClassifierFreeGuidance(start=0.34, stop=0.67)
    found, _ = sample(pipe, call, AdapterGuidance(guidance_scale=4.0, start=0.34, stop=0.67, adapter=adapter))
    assert torch.equal(found, wanted) and not torch.equal(found, bare)
    never, _ = sample(pipe, call, AdapterGuidance(guidance_scale=4.0, stop=0.2, adapter=adapter))
    assert torch.equal(never, bare)
    with pytest.raises(ValueError, match="stop"):
        AdapterGuidance(start=0.5, stop=0.2)


def test_an_interrupted_call_leaves_nothing_to_other_guiders():
    pipe, call, adapter, bare = shaken()

    def stop(*_):
        raise KeyboardInterrupt

    handle = pipe.unet.up_blocks[0].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        sample(pipe, call, AdapterGuidance(guidance_scale=4.0, adapter=adapter))
    handle.remove()
    assert torch.equal(sample(pipe, call, Conditional(guidance_scale=4.0))[0], bare)


def test_a_disabled_adapter_stays_disabled_in_a_guider():
    pipe, call, adapter, bare = shaken()
    guider = AdapterGuidance(guidance_scale=4.0, adapter=adapter)
    with adapter.disabled():
        assert torch.equal(sample(pipe, call, guider)[0], bare)
    assert adapter.enabled and not torch.equal(sample(pipe, call, guider)[0], bare)


def test_a_guider_refuses_an_adapter_that_is_attached_elsewhere():
    pipe, call, adapter, _ = shaken()
    adapter.attach(copy.deepcopy(pipe.unet))
    with pytest.raises(ModelError, match="the guider's adapter is attached to another denoiser"):
        sample(pipe, call, AdapterGuidance(guidance_scale=4.0, adapter=adapter))


def test_a_guider_without_an_adapter_is_refused():
    with pytest.raises(InputError, match="this guider has no adapter"):
        AdapterGuidance().prepare_models(nn.Identity())


def test_its_settings_are_saved_without_the_network(tmp_path):
    AdapterGuidance(guidance_scale=3.0, stop=0.5).save_pretrained(tmp_path)
    back = AdapterGuidance.from_pretrained(tmp_path)
    assert back.guidance_scale == 3.0 and back.config["stop"] == 0.5
    assert AdapterGuidance(guidance_scale=3.0).new(guidance_scale=5.0).guidance_scale == 5.0
