"""What recording and training need of memory: computed for published models, and measured for SDXL on this machine.

`python benchmarks/memory.py` computes; with `--measure` it trains SDXL, with random weights, for one step in two
parts and one validation, and tells the most memory the process ever held; with `--record` it records a trajectory of
256 x 256 pixels with the whole pipeline, text encoders and decoder of published sizes too. On a CPU that multiplies
bfloat16 slowly each layer of these runs computes in float32, with weights that are kept in bfloat16.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from common import RESULTS, provenance, save
from guidefold import ui
from guidefold.adapters import ConditionSpec
from guidefold.config import AdapterConfig, HoldingConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import read_call
from guidefold.distillation.memory import (
    bytes_of,
    forward_memory,
    held_bytes,
    pretending,
    sketch_of_call,
    student_memory,
)
from guidefold.distillation.run import record, train
from guidefold.holding import put
from guidefold.keeping import Adapter
from guidefold.trajectories.identity import fingerprint
from guidefold.trajectories.store import Store
from models import MODELS, Model, in_dtype

GIB = 2**30
SETTINGS = TrainConfig(mixed_precision="bf16", gradient_checkpointing=True)
HELD = {"whole": HoldingConfig(), "nf4": HoldingConfig(quantize="nf4"), "group": HoldingConfig(offload="group")}
# a process that gives freed memory back, so that the most it holds is the most it needs
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def made_in(dtype: torch.dtype, model: Model) -> nn.Module:
    """Return a denoiser whose weights were never anything but of this precision."""
    torch.set_default_dtype(dtype)
    try:
        return model.make().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def computed(model: Model) -> dict[str, Any]:
    """Return the memory that one model needs, in GiB, with bfloat16 weights and one image at a time."""
    with pretending():
        call = in_dtype(model.call(1), torch.bfloat16)
        denoiser = made_in(torch.bfloat16, model)
        assert sum(one.numel() for one in denoiser.parameters()) == model.parameters
        guided = read_call(denoiser, (), in_dtype(model.call(2), torch.bfloat16))
    found = read_call(denoiser, (), call)
    sketch = sketch_of_call(denoiser, found)
    result: dict[str, Any] = {"base": bytes_of(denoiser) / GIB, "latents": model.latents}
    result["recording"] = (bytes_of(denoiser) + forward_memory(denoiser, guided)) / GIB
    step, validation = student_memory(denoiser, sketch, AdapterConfig(), SETTINGS, HELD["whole"], 1)
    parts = {"resting": step.resting, "step": step.peak, "validation": validation.peak}
    for name, holding in HELD.items():
        less = bytes_of(denoiser) - held_bytes(denoiser, holding)  # all else is the same however weights are held
        result[name] = {part: (value - less) / GIB for part, value in parts.items()}
    with torch.device("meta"):
        adapter = Adapter.build(made_in(torch.bfloat16, model), sketch.spec, AdapterConfig())
    return result | {"parameters": adapter.parameter_count()}


def compute(names: list[str]) -> None:
    made, results = provenance(), {}
    for name in names:
        results[name] = computed(MODELS[name])
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
    columns = (
        "",
        "base",
        "recording",
        *(f"{how} {part}" for how in HELD for part in ("resting", "step", "validation")),
    )
    rows = [
        (
            name,
            f"{one['base']:.2f}",
            f"{one['recording']:.2f}",
            *(f"{v:.2f}" for how in HELD for v in one[how].values()),
        )
        for name, one in results.items()
    ]
    ui.table(
        "GiB, computed: bfloat16, one image, checkpointing; what kernels take for themselves not counted", columns, rows
    )
    save(RESULTS / "memory.json", made, results)


def widened(model: nn.Module) -> nn.Module:
    """Have layers with bfloat16 weights compute in float32; all other weights become float32."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.forward = lambda x, own=layer: functional.linear(x, own.weight.float(), as_float(own.bias))
        elif isinstance(layer, nn.Conv2d):
            layer.forward = lambda x, own=layer: functional.conv2d(
                x, own.weight.float(), as_float(own.bias), own.stride, own.padding, own.dilation, own.groups
            )
        elif next(layer.children(), None) is None:
            layer.float()
    return model


def as_float(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else value.float()


def random_store(folder: Path, denoiser: nn.Module, model: Model) -> Path:
    """Write a store of random states of a model, as recording would."""
    config = TrajectoryConfig(trajectories=3, sampling_steps=1, keep=1, record_batch=1, shard=3)
    call = read_call(denoiser, (), model.call(3))
    with torch.device("meta"):
        spec = ConditionSpec.observe(model.make(), read_call(denoiser, (), model.call(3)))
    header = {"config": config.to_dict(), "model": fingerprint(denoiser), "spec": spec.to_dict(), "static": call.static}
    store = Store.create(folder, header=header)
    shard = {f"call.{name}": value.contiguous() for name, value in call.by_image(3).items()}
    latents = call.tensors[call.latents]
    shard |= {"pred_guided": torch.randn_like(latents), "energy": torch.full((3,), float(latents[0].numel()))}
    shard |= {"trajectory": torch.arange(3), "step": torch.zeros(3, dtype=torch.long)}
    shard |= {"trajectory.guidance_scale": torch.tensor([3.0, 5.0, 7.0]), "trajectory.condition": torch.arange(3)}
    store.write_shard(0, shard)
    return folder


def resident() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def watch(start: float) -> None:
    """Tell now and then how much memory has been held so far."""
    while True:
        time.sleep(60)
        print(f"{time.perf_counter() - start:.0f} s: {resident():.2f} GiB", file=sys.stderr, flush=True)


def measure(output: Path, model: Model) -> None:
    """Train a model for a step and validate it once; write what the process took."""
    made, start, imports = provenance(), time.perf_counter(), resident()
    threading.Thread(target=watch, args=(start,), daemon=True).start()
    torch.manual_seed(0)
    denoiser = widened(made_in(torch.bfloat16, model))
    weights = resident()
    config = TrainConfig(
        steps=1, batch_size=2, accumulation=2, validation=1, validate_every=1, checkpoint_every=1,
        gradient_checkpointing=True, warmup=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        store = random_store(Path(folder) / "store", denoiser, model)
        adapter = train(denoiser, Path(folder) / "run", store=store, config=config)
        log = json.loads((Path(folder) / "run" / "log.jsonl").read_text())
    results = {"imports": imports, "with weights": weights, "peak": resident(), "seconds": time.perf_counter() - start}
    results |= {"adapter parameters": adapter.parameter_count(), "log": log, "malloc": MALLOC}
    print(json.dumps(results, indent=1))
    save(output, made, results)


def sdxl_pipeline() -> Any:
    """Return the pipeline of SDXL with random weights, and with a few words only."""
    common = {"vocab_size": 49408, "projection_dim": 768, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 1}
    large = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    small = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    tokens = CLIPTokenizer(vocab=words, merges=[], model_max_length=77, unk_token="<|endoftext|>")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    return StableDiffusionXLPipeline(
        vae=AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks),
        text_encoder=CLIPTextModel(CLIPTextConfig(**common | small)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**common | large | {"projection_dim": 1280})),
        tokenizer=tokens, tokenizer_2=tokens, unet=MODELS["SDXL"].make(),
        scheduler=EulerDiscreteScheduler(steps_offset=1),
    )  # fmt: skip


def measure_recording(output: Path) -> None:
    """Record a trajectory, the parts of the pipeline brought to the device in turn; write what the process took."""
    made, start, imports = provenance(), time.perf_counter(), resident()
    threading.Thread(target=watch, args=(start,), daemon=True).start()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        pipe = sdxl_pipeline()
    finally:
        torch.set_default_dtype(torch.float32)
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    for part in parts.values():
        widened(part.eval().requires_grad_(False))
    sizes, weights = {name: bytes_of(part) / GIB for name, part in parts.items()}, resident()
    pipe = put(pipe, "cpu", HoldingConfig(offload="model"))
    config = TrajectoryConfig(trajectories=1, sampling_steps=2, keep=1, record_batch=1, shard=1)
    with tempfile.TemporaryDirectory() as folder:
        record(pipe, ["a"], Path(folder) / "store", config, height=256, width=256)
    results = {"imports": imports, "parts": sizes, "with weights": weights, "peak": resident()}
    results |= {"latents": "32 x 32", "seconds": time.perf_counter() - start, "malloc": MALLOC}
    print(json.dumps(results, indent=1))
    save(output, made, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--measure", action="store_true", help="train SDXL for a step instead")
    parser.add_argument("--record", action="store_true", help="record a trajectory of SDXL instead")
    parser.add_argument("--output", type=Path, help="default: in benchmarks/results")
    given = parser.parse_args()
    if not (given.measure or given.record):
        compute(given.models or list(MODELS))
    elif MALLOC.items() <= os.environ.items():
        if given.measure:
            measure(given.output or RESULTS / "memory-sdxl.json", MODELS["SDXL"])
        else:
            measure_recording(given.output or RESULTS / "memory-sdxl-recording.json")
    else:
        sys.exit(subprocess.call([sys.executable, *sys.argv], env=os.environ | MALLOC))


if __name__ == "__main__":
    main()
