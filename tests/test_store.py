"""A shard is absent or complete, whoever dies; every kind of damage and mismatch is told in one line."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from guidefold.config import TrajectoryConfig
from guidefold.errors import InputError, StoreError
from guidefold.trajectories import store as module
from guidefold.trajectories.store import PARTIAL, Store

CONFIG = TrajectoryConfig(trajectories=10, sampling_steps=4, keep=2, shard=4)
HEADER = {"model": "abc", "config": CONFIG.to_dict(), "guidefold": "0.1", "static": {"size": [16, 16]}}


def make_shard(store: Store, number: int) -> dict[str, torch.Tensor]:
    numbers = torch.tensor(store.shard_trajectories(number))
    random = torch.Generator().manual_seed(number)
    owners = numbers.repeat_interleave(2)
    return {
        "trajectory": owners,
        "step": torch.tensor([1, 3]).repeat(len(numbers)),
        "latents": torch.randn(len(owners), 4, 3, 3, generator=random),
        "pred_guided": torch.randn(len(owners), 4, 3, 3, generator=random).bfloat16(),
        "trajectory.condition": numbers % 3,
        "trajectory.call.encoder_hidden_states": torch.randn(len(numbers), 5, 6, generator=random),
    }


def fill(store: Store) -> Store:
    for number in store.missing_shards():
        store.write_shard(number, make_shard(store, number))
    return store


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Store:
    return fill(Store.create(tmp_path_factory.mktemp("store") / "new" / "folder", header=HEADER))


@pytest.fixture
def copy(whole, tmp_path) -> Store:
    for name, data in contents(whole.folder).items():
        (tmp_path / name).write_bytes(data)
    return Store.open(tmp_path)


def message_of(call) -> str:
    with pytest.raises(StoreError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def start(script: str, folder: Path, *arguments: str) -> subprocess.Popen:
    """Run a script that sees this file's names, with the folder as its first argument."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_store import *\n"
    command = [sys.executable, "-W", "error", "-c", head + script, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_written_shards_are_read_back_bit_for_bit(whole):
    assert whole.shards == 3
    assert whole.complete
    whole.verify()
    again = Store.open(whole.folder)
    assert again.header == {**HEADER, "format": 3}
    assert again.config == CONFIG
    for number in range(3):
        written, read = make_shard(whole, number), again.read_shard(number)
        assert written.keys() == read.keys()
        assert all(torch.equal(written[name], read[name]) and written[name].dtype == read[name].dtype for name in read)


def test_create_goes_on_with_what_is_there(tmp_path):
    store = Store.create(tmp_path, header=HEADER)
    store.write_shard(1, make_shard(store, 1))
    again = Store.create(tmp_path, header=HEADER)
    assert again.missing_shards() == [0, 2]
    assert not again.complete
    assert "shard-00000.safetensors is missing; run record again" in message_of(again.verify)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "xyz"}, "model = 'abc', this run has model = 'xyz'"),
        ({"config": {**HEADER["config"], "seed": 7}}, "config.seed = 0, this run has config.seed = 7"),
        ({"static": {"size": [8, 8]}}, "static.size = [16, 16], this run has static.size = [8, 8]"),
        ({"more": 1}, "more = nothing, this run has more = 1"),
    ],
)
def test_another_header_is_refused_by_its_first_difference(copy, change, told):
    message = message_of(lambda: Store.create(copy.folder, header={**HEADER, **change}))
    assert told in message
    assert "new folder" in message
    assert copy.complete


@pytest.mark.parametrize("change", [{"model": 3}, {"config": None}, {"config": {"sed": 1}}])
def test_a_header_without_model_or_config_is_refused(tmp_path, change):
    with pytest.raises(InputError):
        Store.create(tmp_path, header={**HEADER, **change})
    assert not list(tmp_path.iterdir())


def test_folders_that_are_no_store_are_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear reader")
    assert "no store but holds 'thesis.tex'" in message_of(lambda: Store.create(tmp_path, header=HEADER))
    assert "cannot make a store" in message_of(lambda: Store.create(tmp_path / "thesis.tex", header=HEADER))
    assert contents(tmp_path) == {"thesis.tex": b"dear reader"}
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "thesis.tex"):
        assert "there is no store in" in message_of(lambda folder=folder: Store.open(folder))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "{}",
        '{"format": 3}',
        '{"format": 3, "model": "a", "config": {"x": 1}}',
        "[" * 100_000,
        json.dumps({**HEADER, "format": 3, "config": {**HEADER["config"], "trajectories": 2**60}}),
    ],
)
def test_a_damaged_index_is_told(copy, text):
    (copy.folder / "index.json").write_text(text)
    assert "index.json is damaged" in message_of(lambda: Store.open(copy.folder))


def test_another_format_is_told(copy):
    (copy.folder / "index.json").write_text(json.dumps({"format": 2}))
    for call in (lambda: Store.open(copy.folder), lambda: Store.create(copy.folder, header=HEADER)):
        assert "has format 2, this guidefold reads format 3" in message_of(call)


def test_check_model(whole):
    whole.check_model("abc")
    assert "from model abc, not from xyz" in message_of(lambda: whole.check_model("xyz"))


def test_a_truncated_shard_is_told(copy):
    path = copy.shard_path(1)
    data = path.read_bytes()
    for length in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        for verify in (True, False):
            message = message_of(lambda verify=verify: copy.read_shard(1, verify=verify))
            assert str(path) in message
            assert "delete it and run record again" in message


def test_any_flipped_byte_is_told(copy):
    path = copy.shard_path(2)
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little") + 8
    for place in [*range(0, header, 3), *range(header, len(good), 101), len(good) - 1]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        message_of(copy.verify)
    path.write_bytes(good)
    copy.verify()


def test_shards_of_another_number_or_store_are_told(copy, tmp_path_factory):
    other = Store.create(tmp_path_factory.mktemp("other"), header={**HEADER, "model": "xyz"})
    other.write_shard(0, make_shard(other, 0))
    copy.shard_path(1).write_bytes(copy.shard_path(0).read_bytes())
    copy.shard_path(2).write_bytes(other.shard_path(0).read_bytes())
    assert "of another store" in message_of(lambda: copy.read_shard(1))
    assert "of another store" in message_of(lambda: copy.read_shard(2, verify=False))


def test_what_reading_refuses_going_on_refuses_too(copy):
    """A swapped shard is told by both; a link to nothing is a missing shard to both, and is written anew."""
    good = {number: copy.shard_path(number).read_bytes() for number in (0, 1)}
    copy.check_shards()
    copy.shard_path(1).write_bytes(good[0])
    assert message_of(copy.check_shards) == message_of(copy.verify) and "delete it" in message_of(copy.check_shards)
    copy.shard_path(1).write_bytes(good[1][:-9])
    assert message_of(copy.check_shards) == message_of(copy.verify)
    copy.shard_path(1).unlink()
    copy.shard_path(1).symlink_to(copy.folder / "nowhere")
    assert copy.missing_shards() == [1] and "is missing; run record again" in message_of(copy.verify)
    fill(copy).verify()
    assert not copy.shard_path(1).is_symlink() and not (copy.folder / "nowhere").exists()


def test_a_planted_link_is_not_followed(copy, tmp_path_factory):
    precious = tmp_path_factory.mktemp("other") / "thesis.tex"
    precious.write_text("dear reader")
    (copy.folder / f"shard-00001.safetensors.1{PARTIAL}").symlink_to(precious)
    copy.shard_path(1).unlink()
    copy.shard_path(1).symlink_to(precious)
    copy.write_shard(1, make_shard(copy, 1))
    Store.create(copy.folder, header=HEADER).verify()
    assert precious.read_text() == "dear reader" and not any(path.is_symlink() for path in copy.folder.iterdir())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"trajectory": None}, "lacks 'trajectory'"),
        ({"trajectory.condition": None}, "lacks 'trajectory.condition'"),
        ({"latents": torch.zeros(3, 4)}, "'latents' of a shard has shape \\[3, 4\\]; give it 8 rows"),
        ({"trajectory.x": torch.zeros(8)}, "give it 4 rows"),
        ({"scale": torch.tensor(1.0)}, "give it 8 rows"),
        ({"trajectory.latents": torch.zeros(4)}, "has both"),
        ({"trajectory": torch.arange(8)}, "states of trajectories 0 to 3"),
    ],
)
def test_a_wrong_layout_is_refused(tmp_path, change, told):
    store = Store.create(tmp_path, header=HEADER)
    tensors = {name: value for name, value in {**make_shard(store, 0), **change}.items() if value is not None}
    with pytest.raises(InputError, match=told):
        store.write_shard(0, tensors)
    with pytest.raises(InputError, match="choose from 0 to 2"):
        store.write_shard(3, tensors)
    assert store.missing_shards() == [0, 1, 2]


def test_killed_while_writing_then_resumed_is_the_same_store(whole, tmp_path):
    killed = start(
        """
store = Store.create(sys.argv[1], header=HEADER)
store.write_shard(0, make_shard(store, 0))
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store.write_shard(1, make_shard(store, 1))
""",
        tmp_path,
    )
    output, _ = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, output
    assert len(list(tmp_path.glob(f"*{PARTIAL}"))) == 1
    assert Store.open(tmp_path).missing_shards() == [1, 2]
    store = fill(Store.create(tmp_path, header=HEADER))
    store.verify()
    assert contents(tmp_path) == contents(whole.folder)


def test_killed_while_the_store_is_made(whole, tmp_path):
    killed = start(
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nStore.create(sys.argv[1], header=HEADER)",
        tmp_path,
    )
    output, _ = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, output
    assert [path.suffix for path in tmp_path.iterdir()] == [PARTIAL]
    fill(Store.create(tmp_path, header=HEADER))
    assert contents(tmp_path) == contents(whole.folder)


def test_two_processes_make_the_same_store(whole, tmp_path):
    script = """
store = Store.create(sys.argv[1], header=HEADER)
for number in range(int(sys.argv[2]), store.shards, 2):
    store.write_shard(number, make_shard(store, number))
"""
    processes = [start(script, tmp_path, str(number)) for number in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert contents(tmp_path) == contents(whole.folder)


def test_a_process_that_starts_while_another_writes_does_no_harm(whole, tmp_path, monkeypatch):
    store, replace, taken = Store.create(tmp_path, header=HEADER), Path.replace, []

    def start_another_first(path, target):
        if not taken:
            taken.append(path)
            Store.create(tmp_path, header=HEADER)
            assert not path.exists()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", start_another_first)
    fill(store)
    assert len(taken) == 1
    assert contents(tmp_path) == contents(whole.folder)


def test_a_full_disk_is_told_and_leaves_finished_shards(whole, tmp_path, monkeypatch):
    store = Store.create(tmp_path, header=HEADER)
    store.write_shard(0, make_shard(store, 0))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        message = message_of(lambda: store.write_shard(1, make_shard(store, 1)))
    assert "shard-00001.safetensors, 0.0 MB" in message
    assert "No space left on device; finished shards are kept: make room and run the same command again" in message
    assert sorted(contents(tmp_path)) == ["index.json", "shard-00000.safetensors"]
    assert contents(fill(store).folder) == contents(whole.folder)


def test_a_write_cut_short_by_the_system_is_told(tmp_path):
    store = Store.create(tmp_path, header=HEADER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        message = message_of(lambda: store.write_shard(0, make_shard(store, 0)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large; finished shards are kept" in message
    assert sorted(contents(tmp_path)) == ["index.json"]


def test_a_folder_that_vanishes_is_told(tmp_path):
    store = Store.create(tmp_path / "store", header=HEADER)
    (tmp_path / "store" / "index.json").unlink()
    (tmp_path / "store").rmdir()
    assert "No such file or directory" in message_of(lambda: store.write_shard(0, make_shard(store, 0)))
