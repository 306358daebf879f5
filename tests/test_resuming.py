"""Training that is cut off anywhere goes on where it was, and what was learnt is not lost."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest
import torch
from accelerate import Accelerator
from runs import SOURCES, assert_unchanged, contents, interrupt, rows, run, state_of
from safetensors.torch import load_file, save_file
from zoo import message_of

from guidefold.distillation import checkpoint as checkpoint_module
from guidefold.distillation import loop as loop_module
from guidefold.distillation.log import LOG
from guidefold.distillation.states import RecordedStates
from guidefold.errors import GuidefoldError, TrainingError
from guidefold.keeping import weights as weights_module


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
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
from runs import RecordedStates, run
from zoo import pipeline

batch = RecordedStates.batch


def batch_or_die(self, step):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return batch(self, step)


RecordedStates.batch = batch_or_die
run(pipeline(), Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_then_resumed_is_uninterrupted_bit_for_bit(pipe, store, finished, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
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


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(pipe, store, tmp_path, monkeypatch):
    batch, before = RecordedStates.batch, state_of(pipe)

    def poisoned(self, step):
        states = batch(self, step)
        return {**states, "pred_guided": states["pred_guided"] * float("nan")} if step == 4 else states

    monkeypatch.setattr(RecordedStates, "batch", poisoned)
    told = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    assert "the loss is nan at step 4; train into a new folder with a learning_rate below 0.002" in told
    assert f"the checkpoint in {tmp_path} is kept" in told
    assert all(value.isfinite().all() for value in load_file(tmp_path / "checkpoint.safetensors").values())
    assert_unchanged(pipe, before)


@pytest.mark.parametrize(
    ("steps", "told"), [(6, "the loss is nan at step 1; train"), (1, "the validation is nan at step 0; train")]
)
def test_a_run_that_diverges_keeps_its_recording_and_writes_no_adapter(pipe, store, steps, told, tmp_path):
    copytree(store, tmp_path / "store")
    message = message_of(TrainingError, lambda: run(pipe, tmp_path, store, steps=steps, learning_rate=1e30))
    assert f"{told} from the store {tmp_path / 'store'} into a new folder" in message
    assert "checkpoint" not in message
    assert {path.name for path in tmp_path.iterdir()} <= {"store", "run.json", LOG}


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(pipe, store, tmp_path, monkeypatch):
    clip = Accelerator.clip_grad_norm_
    monkeypatch.setattr(Accelerator, "clip_grad_norm_", lambda *given: clip(*given) * float("inf"))
    message = message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    assert "the gradient norm is inf at step 0; train into a new folder" in message
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "lacking", "reshaped", "unsaid"])
def test_a_damaged_checkpoint_is_refused(pipe, store, damage, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, "recorded", 2)
        run(pipe, tmp_path, store)
    path = tmp_path / "checkpoint.safetensors"
    whole, tensors, before = path.read_bytes(), load_file(path), state_of(pipe)
    said = {"progress": json.dumps({"step": 2, "recovered": None, "best_step": 0, "parts": 1, "row": None})}
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


@pytest.mark.parametrize("place", [checkpoint_module, weights_module])
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
