"""What tests of training share: short runs, what they leave, and how they are interrupted."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.distillation.log import read_log
from guidefold.distillation.run import train
from guidefold.distillation.states import OnlineStates, RecordedStates
from guidefold.keeping import Adapter

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car", "a red cat", "a blue fox"]
SHAPE = AdapterConfig(rank=2, width=8)
DRAWN = TrajectoryConfig(trajectories=8, sampling_steps=4, keep=2, record_batch=4, shard=4, scale_max=6.0)
SHORT = dict(steps=6, batch_size=4, validation=2, validate_every=2, checkpoint_every=3, refresh_every=2, warmup=0.2)
SOURCES = {"recorded": RecordedStates, "online": OnlineStates}


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{**SHORT, **changes})


def run(pipe, output: Path, store: Path, **changes) -> Adapter:
    """Train for a moment."""
    config = settings(**changes)
    origin = dict(conditions=PROMPTS, trajectory=DRAWN) if config.source == "online" else dict(store=store)
    return train(pipe, output, adapter=SHAPE, config=config, **origin)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a run; the checkpoint, whose header has no fixed order, by its tensors."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    assert "checkpoint.safetensors" in files
    tensors = load_file(files.pop("checkpoint.safetensors"))
    return {name: path.read_bytes() for name, path in files.items()} | {
        f"checkpoint/{name}": value.numpy().tobytes() for name, value in tensors.items()
    }


def rows(folder: Path) -> list[dict]:
    return read_log(folder / "log.jsonl")


def state_of(pipe):
    unet = pipe.unet
    return (
        {name: value.clone() for name, value in unet.state_dict().items()},
        [value.requires_grad for value in unet.parameters()],
        [module.training for module in unet.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules()],
        (type(pipe), unet.is_gradient_checkpointing, "forward" in vars(unet)),
    )


def assert_unchanged(pipe, before) -> None:
    weights, *rest = state_of(pipe)
    assert rest == list(before[1:])
    assert all(torch.equal(value, before[0][name]) for name, value in weights.items())


def interrupt(monkeypatch, source: str, step: int, error: type[BaseException] = KeyboardInterrupt) -> None:
    batch = SOURCES[source].batch

    def batch_or_stop(self, number):
        if number == step:
            raise error("no")
        return batch(self, number)

    monkeypatch.setattr(SOURCES[source], "batch", batch_or_stop)
