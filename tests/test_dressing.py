"""A user's own model is a teacher: with LoRAs merged, a ControlNet, another variant; what does not fit is one line."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from zoo import message_of, pipeline

from guidefold import cli, models
from guidefold.config import ModelConfig
from guidefold.dressing import lora_of
from guidefold.errors import InputError, ModelError
from guidefold.trajectories.identity import fingerprint

# what diffusers itself warns of, when it looks for a pipeline with a ControlNet
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

TINY = ["--trajectories", "4", "--sampling-steps", "2", "--keep", "2", "--record-batch", "4", "--batch-size", "2"]
TINY += ["--steps", "2", "--validation", "1", "--rank", "2", "--width", "8", "--warmup", "0.5"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Return a folder with a pipeline, two LoRAs for it, a ControlNet and a picture for that."""
    folder, pipe = tmp_path_factory.mktemp("model"), pipeline()
    pipe.save_pretrained(folder / "pipe")
    for seed in (1, 2):
        torch.manual_seed(seed)
        unet = pipeline().unet
        unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
        layers = get_peft_model_state_dict(unet)
        StableDiffusionPipeline.save_lora_weights(folder / "loras", layers, weight_name=f"{seed}.safetensors")
    network = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    network.controlnet_mid_block.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    network.save_pretrained(folder / "controlnet")
    Image.new("RGB", (16, 16), "red").save(folder / "edges.png")
    (folder / "prompts.txt").write_text("a fox\na cat\na tree\na car", encoding="utf-8")
    return folder


def load(model: Path, **dress):
    return models.load_pipeline(str(model / "pipe"), "cpu", "float32", None, ModelConfig(**dress))


def test_loras_are_merged_at_their_scales(model):
    bare, one = load(model).unet, str(model / "loras" / "1.safetensors")
    whole, half, both = (
        load(model, lora=lora).unet
        for lora in ((one,), (f"{one}:0.5",), (f"{one}:0.5", str(model / "loras" / "2.safetensors")))
    )
    assert list(whole.state_dict()) == list(bare.state_dict())  # a fine-tune like any other
    name = next(name for name in bare.state_dict() if name.endswith("attn2.to_v.weight"))
    weights = [unet.state_dict()[name] for unet in (bare, whole, half, both)]
    assert torch.allclose(weights[1] - weights[0], 2 * (weights[2] - weights[0]), atol=1e-6)
    assert (weights[1] - weights[0]).abs().max() > 1e-3 and not torch.allclose(weights[3], weights[2], atol=1e-4)


def test_a_fine_tune_is_a_teacher_from_the_command_line(model, tmp_path):
    dress = ["--model", str(model / "pipe"), "--lora", f"{model / 'loras' / '1.safetensors'}:2"]
    run = ["--conditions", str(model / "prompts.txt"), "--output", str(tmp_path / "run"), *TINY]
    assert cli.main(["distill", *dress, *run]) == 0
    told = json.loads((tmp_path / "run" / "best" / "config.json").read_text())["trained"]
    tuned = load(model, lora=(f"{model / 'loras' / '1.safetensors'}:2",)).unet
    assert told["base_fingerprint"] == fingerprint(tuned) != fingerprint(load(model).unet)
    sampled = ["--adapter", str(tmp_path / "run" / "best"), "--sampling-steps", "2", "--output", str(tmp_path)]
    assert cli.main(["sample", "a fox", *dress, "--compare", *sampled]) == 0
    tuned, bare = (tmp_path / f"{kind}.png" for kind in ("000-cfg-7.5", "bare"))
    assert cli.main(["sample", "a fox", *dress[:2], "--no-adapter", *sampled[2:-1], str(tmp_path / "bare")]) == 0
    bare = tmp_path / "bare" / "000-cfg-7.5.png"
    assert Image.open(tuned).tobytes() != Image.open(bare).tobytes()


def test_a_controlnet_and_its_picture_are_named_on_the_command_line(model, tmp_path, capsys):
    def sampled(name, *more):
        arguments = ["--model", str(model / "pipe"), "--no-adapter", "--sampling-steps", "2", "--guidance-scale", "3"]
        assert cli.main(["sample", "a fox", *arguments, *more, "--output", str(tmp_path / name)]) == 0
        return Image.open(tmp_path / name / "000-cfg-3.png")

    network = ["--controlnet", str(model / "controlnet")]
    with sampled("bare") as bare, sampled("led", *network, "--call", f"image=@{model / 'edges.png'}") as led:
        assert bare.tobytes() != led.tobytes()
    with pytest.raises(SystemExit):
        cli.main(["sample", "a fox", "--call", "image=@absent.png"])
    assert "no picture in absent.png" in capsys.readouterr().err


def test_variants_are_found_and_missing_ones_told(model, tmp_path):
    load(model).save_pretrained(tmp_path / "pipe", variant="small")
    assert isinstance(load(tmp_path, variant="small"), StableDiffusionPipeline)
    told = message_of(ModelError, lambda: load(tmp_path, variant="large"))
    assert told.startswith(f"cannot load a pipeline from {tmp_path / 'pipe'}: ")


@pytest.mark.parametrize(
    ("dress", "error", "told"),
    [
        ({"lora": ("absent.safetensors:2",)}, InputError, "there is no file absent.safetensors"),
        ({"lora": (__file__,)}, InputError, "no .safetensors file; pickles are not read"),
        ({"lora": (":2",)}, InputError, "write PATH or PATH:scale"),
        ({"lora": ("me/style:nan",)}, InputError, "write PATH or PATH:scale"),
        ({"lora": ("me/style:0",)}, InputError, "at scale 0 does nothing"),
        ({"lora": ("{loras}/empty.safetensors",)}, ModelError, "cannot use the LoRA"),
        ({"lora": ("{loras}/foreign.safetensors",)}, ModelError, "give one of this model"),
        ({"controlnet": "{loras}"}, ModelError, "cannot use the ControlNet"),
    ],
)
def test_what_does_not_fit_is_one_line(model, dress, error, told, tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "empty.safetensors").write_bytes(b"")
    save_file({"unet.some.layer.lora_A.weight": torch.ones(2, 4)}, tmp_path / "foreign.safetensors")
    filled = {
        name: tuple(one.format(loras=tmp_path) for one in value) if name == "lora" else value.format(loras=tmp_path)
        for name, value in dress.items()
    }
    assert told in message_of(error, lambda: load(model, **filled))


def test_a_bundled_teacher_is_there_in_one_form_alone():
    told = message_of(
        InputError, lambda: models.load_pipeline("bundled", "cpu", "float32", None, ModelConfig(revision="v1"))
    )
    assert told == "bundled is there in one form alone; leave revision out"


def test_a_lora_has_a_place_and_a_scale():
    assert lora_of("me/style") == ("me/style", 1.0) and lora_of("a.safetensors:-0.5") == ("a.safetensors", -0.5)
    assert lora_of("C:/style") == ("C:/style", 1.0)
