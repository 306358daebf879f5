"""Make the virtual environment that `make` uses: `python tools/setup.py .venv`. Standard library only.

A machine without an NVIDIA GPU must not download gigabytes of CUDA for nothing, so torch is settled before the rest.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PREFIXES = ("nvidia-", "cuda-")
ALLOW_CUDA = "GUIDEFOLD_ALLOW_CUDA"
NO_CPU_BUILD = (
    "setup: no CPU build of {pin} found: pip would download CUDA ({packages}), but this machine shows no NVIDIA GPU; "
    f"make {CPU_INDEX} reachable, or set {ALLOW_CUDA}=1 to install CUDA anyway"
)


def pinned(lock: str, name: str) -> str:
    """Return the line of the lock file that pins `name`."""
    return next(line for line in lock.splitlines() if line.startswith(f"{name}=="))


def cuda_packages(report: dict[str, Any]) -> list[str]:
    """Return the CUDA packages in one of pip's installation reports."""
    names = [item["metadata"]["name"].lower() for item in report["install"]]
    return sorted(name for name in names if name.startswith(CUDA_PREFIXES))


def refusal(pin: str, report: dict[str, Any]) -> str | None:
    """Return why `pin` must not be installed as pip plans to, or None if it may."""
    if not (found := cuda_packages(report)):
        return None
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return NO_CPU_BUILD.format(pin=pin, packages=found[0] + others)


def has_gpu() -> bool:
    """Tell whether an NVIDIA driver with a GPU answers."""
    if not (command := shutil.which("nvidia-smi")):
        return False
    return subprocess.run([command, "-L"], capture_output=True, check=False).stdout.startswith(b"GPU")


def answers(url: str) -> bool:
    """Tell whether a web address answers within 3 seconds."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=3):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def phase(title: str) -> Iterator[None]:
    """Print one line: what is being done, then how long it took."""
    print(f"setup: {title} ... ", end="", flush=True)
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def pip(python: Path, *arguments: str) -> str:
    """Run the environment's pip, errors shown, and return what it printed; exits as pip does if it fails."""
    command = [python, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        sys.exit(f"\nsetup: failed: pip {' '.join(arguments)}")
    return result.stdout


def install_cpu_torch(python: Path, pin: str) -> None:
    """Install torch without CUDA, or exit with one line that says what to do."""
    if answers(f"{CPU_INDEX}/torch/"):
        pip(python, "install", "--no-deps", "--index-url", CPU_INDEX, pin)
        return
    if reason := refusal(pin, json.loads(pip(python, "install", "--dry-run", "--report", "-", pin))):
        sys.exit(f"\n{reason}")
    pip(python, "install", pin)


def make_environment(folder: Path) -> Path:
    """Create the virtual environment unless it is there, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        with phase(f"virtual environment in {folder.name}"):
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return python


def main(folder: Path) -> None:
    """Set everything up and leave a stamp, so that make knows."""
    if sys.version_info < (3, 11):  # noqa: UP036, an older Python may be the one that runs this file
        sys.exit(
            f"setup: this is Python {sys.version.split()[0]}; guidefold needs 3.11 or newer: make PYTHON=python3.11"
        )
    lock = LOCK.read_text(encoding="utf-8")
    python = make_environment(folder)
    with phase("pip"):  # an old pip downloads whole wheels, CUDA's too, only to plan with them
        pip(python, "install", pinned(lock, "pip"))
    if not has_gpu() and os.environ.get(ALLOW_CUDA) != "1":
        with phase("torch for the CPU"):
            install_cpu_torch(python, pinned(lock, "torch"))
    with phase("the other pinned packages"):
        pip(python, "install", "-r", str(LOCK))
    with phase("guidefold itself"):
        pip(python, "install", "--no-deps", "--no-build-isolation", "-e", ".")
    (folder / ".installed").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
