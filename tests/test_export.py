"""Files that other programs read: an adapter's deltas as a LoRA."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, WanPipeline
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_wan_transformer_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file
from sampling import PROMPTS, build, sample
from zoo import make, message_of, pipeline, shake, unet

from guidefold.acting.names import traced
from guidefold.adapters import ConditionSpec
from guidefold.cli import main
from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import read_call
from guidefold.distillation.run import distill
from guidefold.errors import InputError
from guidefold.evaluation.exporting import export
from guidefold.keeping import Adapter
from guidefold.keeping.export import foldable, format_for, ldm_name, named, pairs_of, wan_name
from guidefold.keeping.hub import load

SCALE = 5.0
FEW = {"steps": 3, "batch": 2}


def adapter_for(denoiser, call, **settings):
    """Return an adapter that does something."""
    spec = ConditionSpec.observe(denoiser, read_call(denoiser, (), call))
    adapter = Adapter.build(denoiser, spec, AdapterConfig(width=8, **settings))
    shake(adapter)
    return adapter


def deltas(denoiser, call):
    """Return what an adapter with deltas folds into weights, as it acts in diffusers."""
    return foldable(adapter_for(denoiser, call, rank=2), None)


def close(found, wanted, base):
    """Assert that two answers differ by half precision's rounding of what the file changes."""
    assert (found - wanted).abs().max() < 4e-3 * (wanted - base).abs().max()


def answers(denoiser, call, adapter, load):
    """Return a denoiser's answers with the file loaded, with the adapter attached, and with neither."""
    base = denoiser(**call, return_dict=False)[0]
    adapter.attach(denoiser)
    adapter.guidance_scale = SCALE
    wanted = denoiser(**call, return_dict=False)[0]
    adapter.detach()
    load(denoiser)
    return denoiser(**call, return_dict=False)[0], wanted, base


@torch.no_grad()
def test_a_unets_file_does_in_diffusers_what_the_deltas_do(pipe, tmp_path):
    adapter = build(pipe, design="film")
    done = export(pipe, adapter, tmp_path / "one.safetensors", PROMPTS, guidance_scale=SCALE, **FEW)
    bare = sample(pipe, scale=1.0)
    tensors = load_file(done.path)
    assert done.layers == len(tensors) / 2 and {value.dtype for value in tensors.values()} == {torch.float16}
    assert not [key for key in tensors if "alpha" in key or "bias" in key]
    assert len({len(value) for key, value in tensors.items() if "lora_down" in key}) == 1
    with safe_open(done.path, "pt") as file:
        told = file.metadata()
    assert told["guidefold.recovered"] == f"{done.kept:.3f}" and float(told["guidefold.guidance_scale"]) == SCALE
    assert done.kept != done.whole
    pipe.load_lora_weights(done.path)
    found = sample(pipe, scale=1.0)
    pipe.unload_lora_weights()
    done.part.attach(pipe)
    close(found, sample(pipe, scale=SCALE), bare)
    done.part.detach()
    assert torch.equal(sample(pipe, scale=1.0), bare)


@torch.no_grad()
def test_a_plain_lora_is_all_in_its_file(pipe, tmp_path):
    adapter = build(pipe, design="lora")
    assert set(adapter.layered) == set(adapter.deltas) and adapter.encoder is None
    done = export(pipe, adapter, tmp_path / "one.safetensors", PROMPTS, guidance_scale=SCALE, **FEW)
    assert done.kept == done.whole and done.part is adapter
    bare = sample(pipe, scale=1.0)
    pipe.load_lora_weights(done.path)
    found = sample(pipe, scale=1.0)
    pipe.unload_lora_weights()
    adapter.attach(pipe)
    wanted = sample(pipe, scale=SCALE)
    close(found, wanted, bare)
    adapter.fold()
    torch.testing.assert_close(sample(pipe, scale=SCALE), wanted, rtol=1e-3, atol=1e-3)
    adapter.detach()
    assert torch.equal(sample(pipe, scale=1.0), bare)
    adapter.trained = {"scale_min": 4.0, "scale_max": 4.0}
    told = message_of(InputError, lambda: export(pipe, adapter, done.path, PROMPTS, guidance_scale=SCALE, **FEW))
    assert told.endswith("trained at guidance scale 4; give that")


def test_a_plain_lora_is_trained_at_one_scale(pipe, tmp_path):
    settings = {"adapter": AdapterConfig(design="lora", rank=2)}
    config = TrainConfig(steps=2, batch_size=2, validation=1)

    def run(**trajectory):
        drawn = TrajectoryConfig(trajectories=3, sampling_steps=2, keep=2, record_batch=2, **trajectory)
        return distill(pipe, PROMPTS, tmp_path / "run", trajectory=drawn, config=config, **settings)

    assert "give scale_min and scale_max alike" in message_of(InputError, run)
    alike = {"scale_min": SCALE, "scale_max": SCALE}
    assert "neither negative prompts" in message_of(InputError, lambda: run(negatives=("blurry",), **alike))
    assert not (tmp_path / "run").exists()
    adapter = run(**alike)
    assert load(tmp_path / "run" / "best").trained["scale_max"] == SCALE
    assert any(layer.up.any() for layer in adapter.layers)


@torch.no_grad()
def test_sdxls_file_has_names_of_latent_diffusion():
    denoiser, call = make("sdxl")
    adapter = deltas(denoiser, call)
    tensors = named(pairs_of(adapter, SCALE), denoiser, "kohya")

    def load(model):
        state, alphas = StableDiffusionXLPipeline.lora_state_dict(tensors, unet_config=model.config)
        StableDiffusionXLPipeline.load_lora_into_unet(state, alphas, model)

    assert "lora_unet_input_blocks_0_0.lora_down.weight" in tensors
    close(*answers(denoiser, call, adapter, load))


@pytest.mark.parametrize("layers", [1, 2])
def test_names_of_latent_diffusion_are_those_that_diffusers_converts_back(layers):
    model = unet(layers_per_block=layers)
    ours = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    shapes = {f"model.diffusion_model.{ldm_name(name, model)}.weight": (8, 8) for name in ours}
    assert len(shapes) == len(ours)
    config = dict(model.config) | {"layers_per_block": layers}
    # the converter looks for one bias of every place
    shapes |= {name.replace("weight", "bias"): (8,) for name in shapes}
    back = traced(shapes, lambda weights: convert_ldm_unet_checkpoint(weights, config))
    assert {name: back[f"{name}.weight"].name for name in ours} == {
        name: f"model.diffusion_model.{ldm_name(name, model)}.weight" for name in ours
    }


@torch.no_grad()
@pytest.mark.parametrize("kind", ["sd", "sd3", "wan"])
def test_a_file_with_names_of_diffusers_does_there_what_the_deltas_do(kind):
    denoiser, call = make(kind)
    adapter = deltas(denoiser, call)
    tensors = named(pairs_of(adapter, SCALE), denoiser, "diffusers")

    def load(model):
        if kind != "wan":
            model.load_lora_adapter(tensors, prefix="unet" if kind == "sd" else "transformer")
        else:
            WanPipeline.load_lora_into_transformer(WanPipeline.lora_state_dict(dict(tensors)), model)

    close(*answers(denoiser, call, adapter, load))


def test_wans_names_are_those_that_diffusers_converts_back():
    denoiser, call = make("wan")
    names = deltas(denoiser, call).layered
    back = traced({f"{wan_name(name)}.weight": (4, 4) for name in names}, convert_wan_transformer_to_diffusers)
    assert {name: back[f"{name}.weight"].name for name in names} == {name: f"{wan_name(name)}.weight" for name in names}


def test_what_cannot_travel_is_refused_in_one_line(pipe, tmp_path):
    path, (denoiser, call) = tmp_path / "one.safetensors", make("sd")

    def refused(adapter, output=path, scale=SCALE):
        return message_of(InputError, lambda: export(pipe, adapter, output, PROMPTS, guidance_scale=scale, **FEW))

    assert "--rank" in refused(adapter_for(denoiser, call))
    assert "design offset" in refused(adapter_for(denoiser, call, design="offset", rank=2))
    adapter = adapter_for(denoiser, call, rank=2)
    assert ".safetensors" in refused(adapter, tmp_path / "one.bin")
    assert "more than 1" in refused(adapter, scale=1.0)
    assert "diffusers" in message_of(InputError, lambda: format_for(make("sd3")[0], "kohya"))
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_file_and_tells_what_it_keeps(pipe, tmp_path, capsys):
    pipeline().save_pretrained(tmp_path / "model")
    build(pipe, design="film").save_pretrained(tmp_path / "adapter")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    arguments = ["--model", tmp_path / "model", "--conditions", tmp_path / "prompts.txt"]
    arguments += ["--output", tmp_path / "one.safetensors", "--guidance-scale", SCALE, "--sampling-steps", 2]
    assert main(["export", str(tmp_path / "adapter"), *map(str, arguments)]) == 0
    assert "of guidance, the whole adapter" in capsys.readouterr().out
    assert (tmp_path / "one.safetensors").exists()
    assert main(["export", str(tmp_path / "adapter"), "--guidance-scale", "0.5"]) == 2
