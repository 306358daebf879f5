"""What the benchmarks share: results as JSON that says where they come from."""

import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import diffusers
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout


def cpu_model() -> str:
    """Return the processor's name, from Linux where there is one."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_model()


def launcher() -> list[str]:
    """Return what this benchmark was started with: python, or torchrun where several processes train."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    return ["python"] if processes == 1 else ["torchrun", "--nproc-per-node", str(processes)]


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Return which code gave a result, when, with what and on which machine."""
    # results of earlier benchmarks do not make the code another
    changes = git("status", "--porcelain", "--", ".", f":!{RESULTS.relative_to(ROOT)}")
    return {
        "commit": git("rev-parse", "HEAD").strip(),
        "dirty": bool(changes.strip()),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([*launcher(), *sys.argv]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
    }


def save(path: Path, made: dict[str, Any], results: Any) -> None:
    """Write results with their provenance; `made` comes from before the work, during which code may change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"made": made, "results": results}, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {path}", file=sys.stderr)
