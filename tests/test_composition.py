"""An adapter beside what users of diffusers add to a pipeline, each time with the real mechanism."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from support import parts
from support.case import Case
from support.case import build as family
from torch import Tensor, nn
from zoo import pipeline, shake

from guidefold.adapters import ConditionSpec
from guidefold.capture.observe import observe
from guidefold.config import AdapterConfig
from guidefold.keeping import Adapter


def sd() -> Case:
    call = dict(prompt="a red fox", guidance_scale=6.0, num_inference_steps=3, output_type="latent")
    return Case(pipe=pipeline(), call=call)


def of(name: str, **more) -> Callable[[], Case]:
    def make():
        case = family(name)
        return Case(pipe=case.pipe, call=case.call | more)

    return make


def build(make, **settings) -> tuple[Adapter, SimpleNamespace]:
    """Return an adapter for a pipeline that has learnt nothing, and what was seen of the pipeline's guidance."""
    case = make()
    seen = observe(case.pipe, **case.call)
    (name,) = seen.denoisers
    first = next(one.call for one in seen.bare.called if one.denoiser == name)
    dials = tuple((dial.name, dial.off) for dial in seen.switch.dials)
    denoiser = getattr(case.pipe, name)
    spec = ConditionSpec.observe(denoiser, first, dials=dials, anchors=seen.switch.anchors, denoiser=name)
    torch.manual_seed(0)
    return Adapter.build(denoiser, spec, AdapterConfig(**{"rank": 2, "width": 8, **settings})), seen


def sample(case: Case, **more) -> Tensor:
    answer = case.pipe(**case.call | dict(generator=torch.Generator().manual_seed(0)) | more)[0]
    return torch.as_tensor(answer).clone()


def unguided(case: Case, seen) -> Tensor:
    with seen.switch.without(case.pipe):
        return sample(case, **seen.switch.off(case.call))


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Compare weights bit for bit; what is offloaded has none to compare."""
    pairs = [(one[name], other[name]) for name in one if one[name].device != torch.device("meta")]
    return list(one) == list(other) and all(torch.equal(a, b) for a, b in pairs)


def keeps_the_laws(make, mechanism, *, changes: bool, both_orders=True, tolerance=1e-3, **settings) -> None:
    """Check that an adapter beside a mechanism does nothing untrained, acts trained, goes without a trace.

    `changes` tells whether the mechanism is to change the output. Attaching after it and before it must be the same.
    """
    adapter, seen = build(make, **settings)
    plain, case = make(), make()
    mechanism(case.pipe)
    denoiser = getattr(case.pipe, adapter.spec.denoiser)
    guided, bare, before = sample(case), unguided(case, seen), weights(denoiser)
    assert torch.equal(guided, sample(plain)) != changes
    adapter.attach(case.pipe)
    assert torch.equal(sample(case), bare), "an untrained adapter does something"
    shake(adapter)
    adapted = sample(case)
    assert adapted.isfinite().all() and far(adapted, bare)
    assert same(weights(denoiser), before)
    adapter.detach()
    assert torch.equal(sample(case), guided), "detaching leaves something behind"
    adapter.attach(plain.pipe)
    assert far(sample(plain), adapted) == changes
    if both_orders:
        mechanism(plain.pipe)
        assert not far(sample(plain), adapted, tolerance), "the order of attaching matters"
    adapter.detach()
    if both_orders:
        assert torch.equal(sample(plain), guided)


def far(one: Tensor, other: Tensor, tolerance=1e-3) -> bool:
    one, other = one.float(), other.float()
    return bool((one - other).abs().max() > tolerance * other.abs().max())


def lora(*targets: str) -> Callable:
    def add(pipe):
        torch.manual_seed(3)
        pipe.unet.add_adapter(LoraConfig(r=2, target_modules=list(targets), init_lora_weights=False))

    return add


def loaded_lora(pipe) -> None:
    """Load LoRA weights as from a file."""
    donor = pipeline()
    lora("to_k", "to_out.0", "ff.net.2")(donor)
    state = {f"unet.{name}": value for name, value in get_peft_model_state_dict(donor.unet).items()}
    pipe.load_lora_weights(state, adapter_name="style")


def fused_lora(pipe) -> None:
    loaded_lora(pipe)
    pipe.fuse_lora(components=["unet"], lora_scale=0.7)


def unfused_lora(pipe) -> None:
    fused_lora(pipe)
    pipe.unfuse_lora(components=["unet"])


def fused_and_unloaded_lora(pipe) -> None:
    fused_lora(pipe)
    pipe.unload_lora_weights()


@pytest.mark.parametrize(
    "mechanism", [lora("to_q", "to_v"), loaded_lora, fused_lora, unfused_lora, fused_and_unloaded_lora]
)
def test_lora(mechanism):
    keeps_the_laws(sd, mechanism, changes=True)


def test_lora_on_a_convolution_that_is_a_target():
    keeps_the_laws(sd, lora("conv1", "to_q"), changes=True, target_modules=("conv1", "to_q"))


def test_unloading_lora_leaves_the_adapter():
    (adapter, _), case = build(sd), sd()
    shake(adapter)
    adapter.attach(case.pipe)
    expected = sample(case)
    adapter.detach()
    loaded_lora(case.pipe)
    adapter.attach(case.pipe)
    assert far(sample(case), expected)
    case.pipe.unload_lora_weights()
    assert torch.equal(sample(case), expected)


def ip_adapter(pipe) -> None:
    """Load an IP-Adapter for CLIP's image embeddings into a pipeline without one."""
    torch.manual_seed(4)
    width = pipe.unet.config.cross_attention_dim
    names = [name.removesuffix(".processor") for name in pipe.unet.attn_processors if "attn2" in name]
    outputs = [pipe.unet.get_submodule(name).to_q.out_features for name in names]
    layers = {
        f"{2 * number + 1}.to_{leaf}_ip.weight": torch.randn(out, width)
        for number, out in enumerate(outputs)
        for leaf in "kv"
    }
    bias, norm = torch.randn(4 * width), {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    projection = {"proj.weight": torch.randn(4 * width, parts.WIDTH), "proj.bias": bias, **norm}
    pipe.load_ip_adapter({"image_proj": projection, "ip_adapter": layers}, subfolder="", weight_name="")


def seeing() -> Case:
    case = sd()
    torch.manual_seed(0)
    encoder = parts.clip_vision(projection=True).requires_grad_(False)
    case.pipe.register_modules(image_encoder=encoder, feature_extractor=parts.clip_pictures())
    return case


def looking() -> Case:
    case = seeing()
    ip_adapter(case.pipe)
    return Case(pipe=case.pipe, call=case.call | {"ip_adapter_image": parts.photo()})


def test_ip_adapter():
    keeps_the_laws(looking, lambda pipe: pipe.set_ip_adapter_scale(0.3), changes=True)


def test_an_ip_adapter_loaded_and_unloaded_while_attached():
    (adapter, _), case, photo = build(seeing), seeing(), {"ip_adapter_image": parts.photo()}
    shake(adapter)
    adapter.attach(case.pipe)
    alone = sample(case)
    ip_adapter(case.pipe)
    together = sample(case, **photo)
    assert far(together, alone)
    late = looking()
    adapter.detach()
    adapter.attach(late.pipe)
    assert torch.equal(sample(late), together)
    adapter.detach()
    adapter.attach(case.pipe)
    case.pipe.unload_ip_adapter()
    assert torch.equal(sample(case), alone)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("StableDiffusionControlNetPipeline", "controlnet_conditioning_scale"),
        ("StableDiffusionAdapterPipeline", "adapter_conditioning_scale"),
    ],
)
def test_controlnet_and_t2i_adapter(name, argument):
    make = of(name)
    keeps_the_laws(make, lambda pipe: None, changes=False)
    (adapter, _), case = build(make), make()
    shake(adapter)
    adapter.attach(case.pipe)
    assert far(sample(case, **{argument: 20.0}), sample(case, **{argument: 0.0})), (
        "the control does not reach the output"
    )


def finetuned(pipe) -> None:
    """Change the weights as another checkpoint of the same base has them changed."""
    generator = torch.Generator().manual_seed(5)
    for parameter in pipe.unet.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(
    "mechanism",
    [
        finetuned,
        lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
        lambda pipe: pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
    ],
    ids=["checkpoint", "freeu", "layerwise-casting"],
)
def test_changes_of_the_denoiser(mechanism):
    keeps_the_laws(sd, mechanism, changes=True)
