"""Training: it learns, it can be cut anywhere, and it leaves the base model alone."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from zoo import pipeline, shake

from guidefold.adapters import Adapter
from guidefold.adapters import hub as hub_module
from guidefold.adapters.hub import from_pretrained, save_pretrained
from guidefold.config import AdapterConfig, TrainConfig, TrajectoryConfig
from guidefold.denoiser import predict
from guidefold.distillation import checkpoint as checkpoint_module
from guidefold.distillation import loop as loop_module
from guidefold.distillation.run import distill, record, train
from guidefold.distillation.states import OnlineStates, RecordedStates
from guidefold.errors import GuidefoldError, InputError, ModelError, StoreError, TrainingError
from guidefold.trajectories.recorder import Recorder
from guidefold.trajectories.states import inputs_of

PROMPTS = ["a red fox", "a blue cat", "green tree", "yellow car", "a red cat", "a blue fox"]
SHAPE = AdapterConfig(rank=2, width=8)
DRAWN = TrajectoryConfig(trajectories=8, sampling_steps=4, keep=2, record_batch=4, shard=4, scale_max=6.0)
SHORT = dict(steps=6, batch_size=4, validation=2, validate_every=2, checkpoint_every=3, refresh_every=2, warmup=0.2)
SOURCES = {"recorded": RecordedStates, "online": OnlineStates}


@pytest.fixture
def pipe():
    return pipeline()


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return record(pipeline(), PROMPTS, tmp_path_factory.mktemp("recorded") / "store", DRAWN).folder


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{**SHORT, **changes})


def run(pipe, output: Path, store: Path, **changes) -> Adapter:
    """Train for a moment."""
    config = settings(**changes)
    origin = dict(conditions=PROMPTS, trajectory=DRAWN) if config.source == "online" else dict(store=store)
    return train(pipe, output, adapter=SHAPE, config=config, **origin)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory) -> dict[str, Path]:
    """Return a run of each source that nothing interrupted."""
    folders = {source: tmp_path_factory.mktemp(source) for source in SOURCES}
    for source, folder in folders.items():
        run(pipeline(), folder, store, source=source)
    return folders


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a run; the checkpoint, whose header has no fixed order, by its tensors."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    assert "checkpoint.safetensors" in files
    tensors = load_file(files.pop("checkpoint.safetensors"))
    return {name: path.read_bytes() for name, path in files.items()} | {
        f"checkpoint/{name}": value.numpy().tobytes() for name, value in tensors.items()
    }


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def message_of(error, act) -> str:
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


@pytest.mark.parametrize("source", SOURCES)
def test_it_learns_and_writes_what_it_learnt(pipe, store, source, tmp_path):
    adapter = run(pipe, tmp_path, store, source=source, steps=30, batch_size=8, learning_rate=2e-2, ema_decay=0.9)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[0] == pytest.approx(1, abs=1e-4) and sum(losses[-5:]) / 5 < 0.9 * losses[0]
    assert [row["step"] for row in rows(tmp_path)] == list(range(30))
    best, last = from_pretrained(tmp_path / "best"), from_pretrained(tmp_path / "last")
    assert last.trained["steps"] == 30 and last.trained["source"] == source
    assert best.trained["recovered"] == max(row["validation"] for row in rows(tmp_path) if "validation" in row)
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), best.parameters(), strict=True))
    assert not adapter.attached and not adapter.training
    pipe(PROMPTS[0], num_inference_steps=2, output_type="latent")
    adapter.attach(pipe)


def interrupt(monkeypatch, source: str, step: int, error: type[BaseException] = KeyboardInterrupt) -> None:
    batch = SOURCES[source].batch

    def batch_or_stop(self, number):
        if number == step:
            raise error("no")
        return batch(self, number)

    monkeypatch.setattr(SOURCES[source], "batch", batch_or_stop)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_then_resumed_is_uninterrupted_bit_for_bit(
    pipe, store, finished, source, error, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(error):
        interrupt(patch, source, 4, error)
        run(pipe, tmp_path, store, source=source)
    assert len(rows(tmp_path)) == 4
    run(pipe, tmp_path, store, source=source)
    assert contents(tmp_path) == contents(finished[source])


def test_interrupted_while_it_validates(pipe, store, finished, tmp_path, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RecordedStates, "validation", stop)
        run(pipe, tmp_path, store)
    assert len(rows(tmp_path)) == 1
    run(pipe, tmp_path, store)
    assert contents(tmp_path) == contents(finished["recorded"])


def test_control_c_waits_until_weights_average_and_step_agree(pipe, store, finished, tmp_path, monkeypatch):
    update = loop_module.Average.update

    def press(self, module, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        update(self, module, step)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop_module.Average, "update", press)
        run(pipe, tmp_path, store)
    assert signal.getsignal(signal.SIGINT) is handler
    run(pipe, tmp_path, store)
    assert contents(tmp_path) == contents(finished["recorded"])


KILLED = """
import os, signal, sys
from pathlib import Path
from test_training import RecordedStates, pipeline, run

batch = RecordedStates.batch


def batch_or_die(self, step):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch(self, step)


RecordedStates.batch = batch_or_die
run(pipeline(), Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_then_resumed_is_uninterrupted_bit_for_bit(pipe, store, finished, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(store)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(rows(tmp_path)) == 5
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    run(pipe, tmp_path, store)
    assert contents(tmp_path) == contents(finished["recorded"])


def test_a_finished_run_is_left_as_it_is(pipe, store, finished):
    before = contents(finished["recorded"])
    run(pipe, finished["recorded"], store)
    assert contents(finished["recorded"]) == before


def close(a: Path, b: Path, tolerance: float) -> None:
    """Assert that two runs came to the same weights and losses but for rounding."""
    first, second = (load_file(folder / "last" / "model.safetensors") for folder in (a, b))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=tolerance, atol=tolerance)
    assert [row["loss"] for row in rows(a)] == pytest.approx([row["loss"] for row in rows(b)], rel=tolerance)


@pytest.mark.parametrize("changes", [{"accumulation": 2}, {"accumulation": 4}, {"gradient_checkpointing": True}])
def test_how_a_batch_is_computed_does_not_change_the_result(pipe, store, finished, changes, tmp_path):
    before = state_of(pipe)
    run(pipe, tmp_path, store, **changes)
    close(tmp_path, finished["recorded"], 2e-3)
    assert_unchanged(pipe, before)


def test_bf16_is_close(pipe, store, finished, tmp_path):
    adapter = run(pipe, tmp_path, store, mixed_precision="bf16")
    assert all(value.dtype == torch.float32 for value in adapter.parameters())
    losses = [[row["loss"] for row in rows(folder)] for folder in (tmp_path, finished["recorded"])]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_tensorboard_gets_an_event_file(pipe, store, tmp_path):
    run(pipe, tmp_path, store, tracker="tensorboard", steps=2)
    assert [path for path in tmp_path.rglob("*tfevents*") if path.stat().st_size > 100]


def test_a_tracker_that_is_not_installed_is_told(pipe, store, tmp_path, monkeypatch):
    monkeypatch.setattr("guidefold.distillation.run.find_spec", lambda name: None)
    told = message_of(InputError, lambda: run(pipe, tmp_path, store, tracker="wandb"))
    assert "tracker is wandb but it is not installed" in told


@pytest.mark.parametrize("failing", [False, True])
def test_the_base_model_is_left_as_it_was(pipe, store, failing, tmp_path, monkeypatch):
    pipe.unet.train().requires_grad_(True)
    pipe.unet.conv_in.eval().requires_grad_(False)
    before = state_of(pipe)
    if failing:
        interrupt(monkeypatch, "recorded", 1, ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            run(pipe, tmp_path, store, gradient_checkpointing=True)
    else:
        run(pipe, tmp_path, store, gradient_checkpointing=True)
    assert_unchanged(pipe, before)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(pipe, store, tmp_path, monkeypatch):
    batch, before = RecordedStates.batch, state_of(pipe)

    def poisoned(self, step):
        states = batch(self, step)
        return {**states, "pred_guided": states["pred_guided"] * float("nan")} if step == 4 else states

    monkeypatch.setattr(RecordedStates, "batch", poisoned)
    told = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    assert "the loss is nan at step 4; the checkpoint" in told and "learning_rate below 0.002" in told
    assert all(value.isfinite().all() for value in load_file(tmp_path / "checkpoint.safetensors").values())
    assert_unchanged(pipe, before)


def test_another_runs_folder_is_refused(pipe, store, finished, tmp_path):
    before = contents(finished["recorded"])
    for changes, told in (
        ({"learning_rate": 1e-3}, "holds a run with learning_rate 0.002, not 0.001; give another output folder"),
        ({"source": "online"}, "not 'online'"),
    ):
        assert told in message_of(TrainingError, lambda c=changes: run(pipe, finished["recorded"], store, **c))
    other = record(pipe, PROMPTS[:4], tmp_path / "other", DRAWN).folder
    assert "holds a run with data" in message_of(TrainingError, lambda: run(pipe, finished["recorded"], other))
    assert contents(finished["recorded"]) == before
    (tmp_path / "letters.txt").write_text("dear")
    assert "is not empty and holds no run" in message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json.partial").write_text("{")
    run(pipe, tmp_path / "new", store, steps=1)
    (tmp_path / "new" / "run.json").write_text("[1")
    assert "run.json is damaged" in message_of(TrainingError, lambda: run(pipe, tmp_path / "new", store, steps=1))


def test_what_does_not_belong_together_is_refused(pipe, store, tmp_path):
    output = tmp_path / "run"
    other = pipeline()
    with torch.no_grad():
        other.unet.conv_out.bias.add_(1)
    assert "was recorded from model" in message_of(StoreError, lambda: run(other, output, store))
    assert "there is no store" in message_of(StoreError, lambda: run(pipe, output, tmp_path / "none"))
    assert "but there is no store; record one first" in message_of(InputError, lambda: run(pipe, output, None))
    no_prompts = lambda: train(pipe, output, config=settings(source="online"))  # noqa: E731
    assert "but there are no conditions; give prompts" in message_of(InputError, no_prompts)
    assert "leave some to train on" in message_of(
        InputError, lambda: run(pipe, output, store, source="online", validation=6)
    )
    assert "holds out every prompt" in message_of(InputError, lambda: run(pipe, output, store, validation=8))
    adapter = run(pipe, tmp_path / "good", store, steps=1).attach(pipe)
    assert "has another adapter attached" in message_of(ModelError, lambda: run(pipe, output, store))
    adapter.detach()
    assert not output.exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "lacking", "reshaped", "unsaid"])
def test_a_damaged_checkpoint_is_refused(pipe, store, damage, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, "recorded", 2)
        run(pipe, tmp_path, store)
    path = tmp_path / "checkpoint.safetensors"
    whole, tensors, before = path.read_bytes(), load_file(path), state_of(pipe)
    said = {"progress": json.dumps({"step": 2, "recovered": None, "best_step": 0, "row": None})}
    name = next(name for name in tensors if name.startswith("average."))
    if damage in ("truncated", "empty"):
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    elif damage == "lacking":
        save_file({key: value for key, value in tensors.items() if key != name}, path, metadata=said)
    elif damage == "reshaped":
        save_file({**tensors, name: torch.zeros(3, 7)}, path, metadata=said)
    else:
        save_file(tensors, path)
    told = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    assert "checkpoint.safetensors is damaged" in told and "delete it to start this run again" in told
    assert_unchanged(pipe, before)
    path.unlink()
    run(pipe, tmp_path, store, steps=6)
    assert [row["step"] for row in rows(tmp_path)] == list(range(6))


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", [checkpoint_module, hub_module])
def test_a_full_disk_is_told_and_the_checkpoint_is_kept(pipe, store, finished, place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, "recorded", 1)
        run(pipe, tmp_path, store)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(place, "save_file", full_disk)
        told = message_of(GuidefoldError, lambda: run(pipe, tmp_path, store))
    assert "cannot write" in told and "No space left on device" in told and "make room" in told
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before
    run(pipe, tmp_path, store)
    assert contents(tmp_path) == contents(finished["recorded"])


def test_distill_is_record_and_train(pipe, store, finished, tmp_path):
    distill(pipe, PROMPTS, tmp_path, adapter=SHAPE, trajectory=DRAWN, config=settings())
    recorded = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    assert recorded == {path.name: path.read_bytes() for path in store.iterdir()}
    wanted = contents(finished["recorded"])
    assert {name: value for name, value in contents(tmp_path).items() if not name.startswith("store")} == wanted


@pytest.mark.parametrize("design", ["low_rank", "bottleneck", "cross_attention", "offset"])
def test_saved_then_loaded_is_the_same_adapter(pipe, design, tmp_path):
    recorder = Recorder(pipe, PROMPTS, DRAWN)
    inputs = inputs_of(recorder.states([0, 1]))
    adapter = Adapter.build(pipe.unet, recorder.spec, AdapterConfig(design=design, rank=2, width=8))
    shake(adapter)
    adapter.trained = {"base": "me/tiny", "scale_min": 1.5, "scale_max": 6.0, "recovered": 0.875}
    outputs = []
    for one in (adapter, from_pretrained(save_pretrained(adapter, tmp_path / "adapter"))):
        one.attach(pipe.unet).guidance_scale = 4.0
        with torch.no_grad():
            outputs.append(predict(pipe.unet, inputs, recorder.static))
        one.detach()
        assert one.config == adapter.config and one.trained == adapter.trained and one.spec == adapter.spec
    assert torch.equal(*outputs)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "base_model: me/tiny" in card and "scales from 1.5 to 6" in card and "87.5%" in card
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip


def broken(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "describes no adapter"),
        (lambda folder: (folder / "config.json").write_text("[]"), "describes no adapter"),
        (lambda folder: broken(folder, shapes=[]), "describes no adapter"),
        (lambda folder: broken(folder, shapes={"a": [1]}), "describes no adapter"),
        (lambda folder: broken(folder, adapter={"rank": 0}), "describes no adapter (rank is 0; give at least 1)"),
        (lambda folder: broken(folder, format=2), "has adapter format 2, this guidefold reads 1; upgrade guidefold"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing or damaged"),
        (lambda folder: os.truncate(folder / "model.safetensors", 500), "is missing or damaged"),
        (lambda folder: save_file({}, folder / "model.safetensors"), "is missing or damaged"),
    ],
)
def test_a_damaged_adapter_is_refused(finished, damage, told, tmp_path):
    folder = save_pretrained(from_pretrained(finished["recorded"] / "best"), tmp_path / "adapter")
    damage(folder)
    assert told in message_of(ModelError, lambda: from_pretrained(folder))


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    assert "there is no config.json" in message_of(InputError, lambda: from_pretrained(tmp_path))


def test_the_card_tells_base_and_scales(finished):
    card = (finished["recorded"] / "best" / "README.md").read_text()
    assert "UNet2DConditionModel" in card and "scales from 1.5 to 6" in card and "recorded states" in card
