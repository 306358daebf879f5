"""Models held otherwise than whole on one device: offloaded, packed, from one file; and what cannot be is one line."""

import warnings

import accelerate
import pytest
import torch
from diffusers import DiffusionPipeline
from runs import DRAWN, PROMPTS, SHAPE, contents, rows, run, settings
from safetensors.torch import load_file, save_file
from sampling import sample
from torch import nn
from zoo import make, message_of, pipeline

from guidefold import cli, holding, models
from guidefold.config import HoldingConfig
from guidefold.distillation.freezing import settled
from guidefold.distillation.parts import attempted
from guidefold.distillation.run import record, train
from guidefold.distillation.states import RecordedStates
from guidefold.distillation.student import Student
from guidefold.errors import InputError, ModelError, RoomError, TrainingError
from guidefold.memory import is_of_memory
from guidefold.room import execution_device, weights_kept
from guidefold.trajectories.identity import fingerprint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a pipeline in a folder, as the Hub has them."""
    place = tmp_path_factory.mktemp("model") / "tiny"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline().save_pretrained(place)
    return place


def options(**given) -> list[str]:
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]


SHORT = settings(steps=2, validate_every=2, checkpoint_every=2)
GIVEN = {name: getattr(SHORT, name) for name in ("steps", "batch_size", "validation", "validate_every", "warmup")}


def test_training_from_a_store_loads_the_denoiser_alone(folder, store, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("a whole pipeline was loaded")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", fail)
    given = options(model=folder, store=store, output=tmp_path / "cli", rank=2, width=8, device="cpu", **GIVEN)
    assert cli.main(["train", *given]) == 0
    train(pipeline(), tmp_path / "python", store=store, adapter=SHAPE, config=SHORT)
    for name in ("best", "last"):  # what an adapter says of its base differs, and its seal with it
        one, two = (load_file(tmp_path / made / name / "model.safetensors") for made in ("cli", "python"))
        assert one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("offload", ["model", "group"])
def test_an_offloaded_pipeline_samples_and_trains_as_a_whole_one(offload, folder, store, tmp_path):
    given = HoldingConfig(offload=offload)
    pipe = models.load_pipeline(str(folder), "cpu", "float32", given)
    pipe.set_progress_bar_config(disable=True)
    assert execution_device(pipe.unet).type == "cpu" and fingerprint(pipe.unet) == fingerprint(pipeline().unet)
    assert torch.equal(sample(pipe), sample(pipeline()))
    alone = models.load_denoiser(str(folder), "cpu", "float32", None, given)
    for name, model in (("held", alone), ("whole", pipeline().unet)):
        config = settings(steps=1, gradient_checkpointing=True)
        train(model, tmp_path / name, store=store, adapter=SHAPE, config=config)
    assert rows(tmp_path / "held") == rows(tmp_path / "whole")


def test_the_backward_pass_uses_the_weights_of_the_forward_pass(tmp_path):
    """Offloading to disk empties weights behind autograd's back, as that to the CPU moves them from a GPU."""
    gradients = []
    for offloaded in (False, True):
        model, call = make("sd3")
        model.enable_gradient_checkpointing()
        model.train()
        if offloaded:
            more = dict(offload_type="block_level", num_blocks_per_group=1, offload_to_disk_path=str(tmp_path))
            model.enable_group_offload(CPU, CPU, **more)
        latents = call["hidden_states"].clone().requires_grad_(True)
        with weights_kept():
            model(**call | {"hidden_states": latents})[0].square().sum().backward()
        gradients.append(latents.grad)
    assert torch.equal(*gradients)


def quantised(folder, path):
    """Write a denoiser as GGUF, its linear layers packed where their rows are whole blocks."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "tiny")
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, value in pipeline().unet.state_dict().items():
        packs = name.endswith("weight") and value.dim() == 2 and value.shape[1] % 32 == 0
        data = gguf.quants.quantize(value.numpy(), kind) if packs else value.numpy()
        writer.add_tensor(name, data, raw_dtype=kind if packs else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_one_file_holds_the_denoisers_weights(folder, store, tmp_path):
    other = pipeline().unet
    with torch.no_grad():
        other.conv_out.bias.add_(1)
    path = tmp_path / "other.safetensors"
    save_file(other.state_dict(), path)
    pipe = models.load_pipeline(str(folder), "cpu", "float32", HoldingConfig(checkpoint=str(path)))
    assert fingerprint(pipe.unet) == fingerprint(other) != fingerprint(pipeline().unet)


def test_a_gguf_file_is_recorded_trained_and_sampled(folder, tmp_path, capsys):
    path = tmp_path / "tiny.gguf"
    quantised(folder, path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    given = options(model=folder, device="cpu", checkpoint=path)
    drawn = options(
        conditions=tmp_path / "prompts.txt", trajectories=4, sampling_steps=2, keep=2, record_batch=4, shard=4
    )
    made = options(output=tmp_path / "run", rank=2, width=8, **GIVEN)
    assert cli.main(["distill", *given, *drawn, *made]) == 0
    shown = options(adapter=tmp_path / "run" / "best", sampling_steps=2, output=tmp_path / "images")
    assert cli.main(["sample", "a red fox", *given, *shown]) == 0
    assert "1 passes a step" in capsys.readouterr().out


def packed(kind: str, model: nn.Module, plain: bool = False) -> nn.Module:
    """Pack the linear layers of a model's blocks; `plain` unpacks them again."""
    bnb = pytest.importorskip("bitsandbytes")
    for name, layer in list(model.named_modules()):
        if type(layer) is not nn.Linear or "blocks" not in name:
            continue
        sizes = (layer.in_features, layer.out_features, layer.bias is not None)
        if kind == "nf4":
            made = bnb.nn.Linear4bit(*sizes, compute_dtype=torch.float32, quant_type="nf4")
            made.support_avx512bf16_for_cpu = False  # a CPU's own packing fails for layers as narrow as these
        else:
            made = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
        made.load_state_dict(layer.state_dict())
        made = made.to("cpu").requires_grad_(False)
        if plain:
            weight = made.weight
            if kind == "nf4":
                values = bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
            else:
                values = weight.data.float() * (weight.SCB / 127)[:, None]
            layer.weight.data = values
        else:
            model.set_submodule(name, made)
    return model


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_packed_weights_train_and_are_known_again_unpacked(kind, store, tmp_path):
    unet = packed(kind, pipeline().unet)
    assert fingerprint(unet) == fingerprint(packed(kind, pipeline().unet, plain=True)) != fingerprint(pipeline().unet)
    pipe = pipeline()
    pipe.unet = unet
    mine = record(pipe, PROMPTS, tmp_path / "store", DRAWN).folder
    run(pipe, tmp_path / "packed", mine, steps=2)
    assert [row["step"] for row in rows(tmp_path / "packed")] == [0, 1]


def test_a_fingerprint_is_of_values_however_they_are_held():
    model, _ = make("wan")
    model = model.to(torch.bfloat16)
    rounded = fingerprint(model)
    assert fingerprint(model.float()) == rounded != fingerprint(make("wan")[0])
    accelerate.cpu_offload(model, CPU)
    assert next(iter(model.parameters())).is_meta and fingerprint(model) == rounded
    assert execution_device(model) == CPU
    nowhere = make("sd3")[0].to("meta")
    assert "is on the meta device, which holds no numbers" in message_of(ModelError, lambda: fingerprint(nowhere))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(quantize="nf4"), "quantize nf4 needs a GPU, not cpu; leave quantize out"),
        (dict(checkpoint="model.ckpt"), "checkpoint is 'model.ckpt'; give one .safetensors or .gguf file"),
        (dict(checkpoint="none.safetensors"), "there is no file none.safetensors"),
        (dict(checkpoint="none.gguf"), "there is no file none.gguf"),
    ],
)
def test_what_cannot_be_held_so_is_told(given, told, folder):
    load = lambda: models.load_pipeline(str(folder), "cpu", None, HoldingConfig(**given))  # noqa: E731
    assert told in message_of(InputError, load)


def test_what_does_not_go_together_is_told(tmp_path, monkeypatch):
    both = HoldingConfig(quantize="int8", offload="group")
    assert "cannot be offloaded in groups" in message_of(InputError, lambda: holding.check_holding(both, "cuda:1"))
    (tmp_path / "a.gguf").write_bytes(b"")
    twice = HoldingConfig(quantize="int8", checkpoint=str(tmp_path / "a.gguf"))
    assert "is quantised already" in message_of(InputError, lambda: holding.check_holding(twice, "cuda"))
    monkeypatch.setattr(holding, "find_spec", lambda name: None)
    for given, library in ((dict(quantize="nf4"), "bitsandbytes"), (dict(checkpoint="a.gguf"), "gguf")):
        told = message_of(InputError, lambda given=given: holding.check_holding(HoldingConfig(**given), "cuda"))
        assert f"needs {library}; pip install 'guidefold[" in told


def test_a_file_that_is_no_checkpoint_is_told(folder, tmp_path):
    for name in ("bad.safetensors", "bad.gguf"):
        (tmp_path / name).write_bytes(b"not a model")
        given = HoldingConfig(checkpoint=str(tmp_path / name))
        told = message_of(ModelError, lambda given=given: models.load_pipeline(str(folder), "cpu", None, given))
        assert f"cannot load a pipeline from {folder}" in told


def test_models_that_cannot_be_trained_so_are_told(tmp_path):
    plain = nn.Sequential(nn.Linear(2, 2))
    checkpointed, compiled = settings(gradient_checkpointing=True), settings(compile=True)
    assert "Sequential has no gradient checkpointing" in message_of(ModelError, lambda: settled(checkpointed, plain))
    assert "names no repeated blocks to compile" in message_of(ModelError, lambda: settled(compiled, plain))
    cast = make("sd3")[0]
    cast.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert "is cast layer by layer" in message_of(ModelError, lambda: settled(checkpointed, cast))
    disk = make("sd3")[0]
    disk.enable_group_offload(CPU, CPU, offload_type="leaf_level", offload_to_disk_path=str(tmp_path))
    assert "is offloaded to disk" in message_of(ModelError, lambda: settled(checkpointed, disk))
    offloaded = make("sd3")[0]
    accelerate.cpu_offload(offloaded, CPU)
    assert settled(settings(), offloaded).gradient_checkpointing
    told = message_of(ModelError, lambda: settled(settings(gradient_checkpointing=False), offloaded))
    assert "without gradient checkpointing all of its weights would wait" in told


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler looks at it
def test_compiled_blocks_train_alike_and_are_left_plain(pipe, store, finished, tmp_path, monkeypatch):
    kind = type(pipe.unet)
    whole = kind.compile_repeated_blocks
    seen = []

    def eagerly(self):
        whole(self, backend="eager")
        seen.append(compiled(self))

    monkeypatch.setattr(kind, "compile_repeated_blocks", eagerly)
    run(pipe, tmp_path, store, compile=True, steps=1)
    assert seen[0] > 0 and compiled(pipe.unet) == 0
    assert rows(tmp_path)[0]["loss"] == pytest.approx(rows(finished["recorded"])[0]["loss"], rel=1e-4)


def compiled(unet: nn.Module) -> int:
    return sum(getattr(module, "_compiled_call_impl", None) is not None for module in unet.modules())


def full(rows: int, most: int) -> None:
    """Raise what torch raises where the CPU has no room."""
    if rows > most:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_as_many_states_at_once_as_fit(pipe, store, finished, tmp_path, monkeypatch):
    forward, sizes = Student.forward, []

    def limited(self, states):
        full(len(states["step"]), 2)
        sizes.append(len(states["step"]))
        return forward(self, states)

    monkeypatch.setattr(Student, "forward", limited)
    run(pipe, tmp_path / "found", store)
    assert set(sizes) == {2}  # in validation too
    run(pipe, tmp_path / "given", store, accumulation=2)
    assert contents(tmp_path / "found")["log.jsonl"] == contents(tmp_path / "given")["log.jsonl"]
    told = message_of(RoomError, lambda: run(pipe, tmp_path / "four", store, accumulation=1))
    assert "out of memory for 4 states at once on cpu; leave accumulation out, or give 2 or more" in told
    run(pipe, tmp_path / "four", store)  # goes on in the same folder: how a batch is computed may change
    assert len(rows(tmp_path / "four")) == 6


def test_no_room_for_one_state_keeps_what_was_learnt(pipe, store, tmp_path, monkeypatch):
    batch = RecordedStates.batch

    def stop(self, step):
        if step == 2:
            monkeypatch.setattr(Student, "forward", lambda *_: full(1, 0))
        return batch(self, step)

    with monkeypatch.context():
        monkeypatch.setattr(RecordedStates, "batch", stop)
        told = message_of(RoomError, lambda: run(pipe, tmp_path, store))
    assert told.startswith("out of memory for one state at once on cpu; give gradient_checkpointing")
    assert (tmp_path / "checkpoint.safetensors").exists() and len(rows(tmp_path)) == 2
    monkeypatch.undo()
    run(pipe, tmp_path, store)
    assert [row["step"] for row in rows(tmp_path)] == list(range(6))


def test_recording_without_room_says_what_to_change(pipe, tmp_path):
    conv = pipe.unet.conv_in
    conv.register_forward_pre_hook(lambda module, args: full(len(args[0]), 4))
    told = message_of(InputError, lambda: record(pipe, PROMPTS, tmp_path / "store", DRAWN))
    assert told.startswith("out of memory; give --offload model, or a smaller record_batch and another folder")


def test_a_parameter_without_gradient_is_named(pipe, store, tmp_path, monkeypatch):
    forward = Student.forward
    monkeypatch.setattr(Student, "forward", lambda self, states: forward(self, states).detach().requires_grad_(True))
    told = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    assert "no gradient reaches the adapter's encoder." in told and "other parameters at step 0" in told


def test_other_errors_are_not_taken_for_missing_room():
    assert not is_of_memory(RuntimeError("shape mismatch")) and is_of_memory(
        torch.OutOfMemoryError("CUDA out of memory.")
    )
    with pytest.raises(ZeroDivisionError):
        attempted(lambda parts: parts // 0, 1)
