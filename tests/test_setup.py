"""Setting up never downloads CUDA for a machine without a GPU."""

import importlib.util
import json
import re
import subprocess
import urllib.error
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PIN = "torch==1.2.3"


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guidefold_setup", ROOT / "tools" / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plan(*names: str) -> dict[str, Any]:
    """Return the part of pip's installation report that matters here."""
    return {"version": "1", "install": [{"metadata": {"name": name, "version": "1"}} for name in names]}


class Pip:
    """Stands in for pip: remembers its arguments and answers a dry run with a plan."""

    def __init__(self, *planned: str) -> None:
        self.planned, self.calls = planned, []

    def __call__(self, _python: Path, *arguments: str) -> str:
        self.calls.append(arguments)
        return json.dumps(plan(*self.planned))


def test_lock_pins_every_package_exactly_and_none_for_a_gpu(setup: ModuleType) -> None:
    lock = setup.LOCK.read_text(encoding="utf-8")
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)  # no +cpu: a GPU's machine uses the same file
    assert setup.pinned(lock, "torch").startswith("torch==") and setup.pinned(lock, "pip").startswith("pip==")
    assert not setup.cuda_packages(plan(*(line.split("==")[0] for line in lines)))
    assert not any(line.startswith("torchvision") for line in lines)


def test_cuda_packages_are_found_by_name(setup: ModuleType) -> None:
    report = plan("torch", "NVIDIA-cublas", "cuda-bindings", "numpy")
    assert setup.cuda_packages(report) == ["cuda-bindings", "nvidia-cublas"]


def test_a_plan_without_cuda_is_not_refused(setup: ModuleType) -> None:
    assert setup.refusal(PIN, plan("torch", "numpy")) is None
    assert setup.refusal(PIN, plan()) is None


def test_refusal_is_one_line_that_says_what_to_do(setup: ModuleType) -> None:
    text = setup.refusal(PIN, plan("torch", "nvidia-cudnn-cu13", "nvidia-cublas"))
    assert "\n" not in text and "GUIDEFOLD_ALLOW_CUDA=1" in text and "nvidia-cublas and 1 more" in text and PIN in text


def test_torch_comes_from_the_cpu_index_if_that_answers(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip("torch", "nvidia-cublas")
    monkeypatch.setattr(setup, "pip", pip)
    monkeypatch.setattr(setup, "answers", lambda url: True)
    setup.install_cpu_torch(Path("python"), PIN)
    assert pip.calls == [("install", "--no-deps", "--index-url", setup.CPU_INDEX, PIN)]


def test_otherwise_torch_is_installed_as_planned_if_the_plan_is_good(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = Pip("torch")
    monkeypatch.setattr(setup, "pip", pip)
    monkeypatch.setattr(setup, "answers", lambda url: False)
    setup.install_cpu_torch(Path("python"), PIN)
    assert "--dry-run" in pip.calls[0] and pip.calls[1] == ("install", PIN)


def test_otherwise_setting_up_stops_before_any_download(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = Pip("torch", "nvidia-cublas")
    monkeypatch.setattr(setup, "pip", pip)
    monkeypatch.setattr(setup, "answers", lambda url: False)
    with pytest.raises(SystemExit, match="GUIDEFOLD_ALLOW_CUDA=1"):
        setup.install_cpu_torch(Path("python"), PIN)
    assert len(pip.calls) == 1


def test_an_address_that_cannot_be_reached_does_not_answer(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(setup.urllib.request, "urlopen", refuse)
    assert not setup.answers(setup.CPU_INDEX)


@pytest.mark.parametrize(("output", "found"), [(b"GPU 0: a card (UUID: x)\n", True), (b"No devices found\n", False)])
def test_a_gpu_is_what_nvidia_smi_lists(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, output: bytes, found: bool
) -> None:
    monkeypatch.setattr(setup.shutil, "which", lambda name: name)
    monkeypatch.setattr(setup.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, output))
    assert setup.has_gpu() is found


def test_no_driver_means_no_gpu(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    assert not setup.has_gpu()
