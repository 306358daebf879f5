"""Run the nodes in a real ComfyUI server over HTTP: `python tools/comfyui_server.py CHECKOUT`.

The server has nothing of its user's: its base is a folder made for this run, with the nodes, two adapters and a node
that makes a tiny model with random weights. `--keep` leaves it running, to be looked at.
"""
# pyright: reportMissingImports=false

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfyui_bench import ROOT, SCALE, STEPS, Bench, close, silence, start

SEED, ROWS = 7, 2
PATIENCE = 900  # seconds: a busy machine takes minutes to import all that a server needs

TINY = '''"""A tiny model and its prompts, for a trial of the nodes."""
import sys
from pathlib import Path

sys.path[:0] = {paths!r}
import comfyui_bench

comfyui_bench.import_nodes()


class TinyModel:
    CATEGORY, FUNCTION = "guidefold", "make"
    RETURN_TYPES, RETURN_NAMES = ("MODEL", "CONDITIONING", "CONDITIONING"), ("model", "positive", "negative")
    INPUT_TYPES = classmethod(lambda cls: {{"required": {{}}}})

    def make(self):
        bench = comfyui_bench.Bench("SD 1.5")

        def counted(module, args):
            with Path({rows!r}).open("a") as file:
                print(len(args[0]), file=file)

        bench.model.diffusion_model.register_forward_pre_hook(counted)
        return bench.patcher, bench.positive, bench.negative


NODE_CLASS_MAPPINGS = {{"TinyModel": TinyModel}}
'''


def workflow(adapter: str | None, cfg: float) -> dict[str, Any]:
    """Return a workflow in the form that the server takes; without an adapter it is plain CFG."""
    given = ["3", 0] if adapter else ["1", 0]
    sampler = {
        "seed": SEED,
        "steps": STEPS,
        "cfg": cfg,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1,
    }
    links = {"model": given, "positive": ["1", 1], "negative": ["1", 2], "latent_image": ["4", 0]}
    nodes = {
        "1": {"class_type": "TinyModel", "inputs": {}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": ROWS}},
        "5": {"class_type": "KSampler", "inputs": sampler | links},
        "6": {"class_type": "SaveLatent", "inputs": {"samples": ["5", 0], "filename_prefix": f"tried-{adapter}"}},
    }
    if adapter:
        nodes["2"] = {"class_type": "GuidefoldLoadAdapter", "inputs": {"adapter": adapter}}
        percents = {"start_percent": 0.0, "stop_percent": 1.0}
        nodes["3"] = {
            "class_type": "GuidefoldApplyAdapter",
            "inputs": {"model": ["1", 0], "adapter": ["2", 0]} | percents,
        }
    return nodes


def ask(address: str, body: Any = None) -> Any:
    """Return the server's answer to a question. A refusal is an answer too."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data), timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def run(address: str, nodes: dict[str, Any]) -> dict[str, Any]:
    """Return what the server's history says of a workflow, when it has ended."""
    answer = ask(f"{address}/prompt", {"prompt": nodes})
    assert "prompt_id" in answer, answer
    last = time.monotonic() + PATIENCE
    while time.monotonic() < last:
        done = ask(f"{address}/history/{answer['prompt_id']}")
        if done:
            return done[answer["prompt_id"]]
        time.sleep(0.2)
    raise TimeoutError(f"the workflow did not end within {PATIENCE} seconds")


def furnish(base: Path) -> None:
    """Make the server's folder: the nodes, two adapters and the tiny model."""
    nodes = base / "custom_nodes"
    shutil.copytree(ROOT / "comfyui", nodes / "guidefold", ignore=shutil.ignore_patterns("__pycache__"))
    (nodes / "tiny").mkdir()
    paths = [str(ROOT / "tools"), str(ROOT / "src")]
    (nodes / "tiny" / "__init__.py").write_text(TINY.format(paths=paths, rows=str(base / "rows")), encoding="utf-8")
    for name, family in (("sd15-folded", "SD 1.5"), ("sdxl-folded", "SDXL")):
        Bench(family).adapter.save_pretrained(base / "models" / "guidefold" / name)


@contextmanager
def serving(checkout: Path, base: Path, *, pages: bool) -> Iterator[str]:
    """Run a server for a while; return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (base / "pages").mkdir()
    options = ["--cpu", "--base-directory", base, "--port", port, "--disable-api-nodes"]
    options += [] if pages else ["--front-end-root", base / "pages"]
    command = [sys.executable, "main.py", *map(str, options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with (base / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=subprocess.STDOUT)
    address, last = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    try:
        while True:
            assert server.poll() is None, (base / "log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{address}/queue", timeout=60).close()
                break
            except OSError:
                assert time.monotonic() < last, (base / "log").read_text()[-2000:]
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def rows_of(base: Path) -> list[int]:
    """Return the rows of the model's calls since the last time this was asked."""
    counted = [int(line) for line in (base / "rows").read_text().split()]
    (base / "rows").unlink()
    return counted


def latent(base: Path, told: dict[str, Any]) -> Any:
    from safetensors.torch import load_file

    assert told["status"]["status_str"] == "success", str(told["status"])[:3000]
    saved = told["outputs"]["6"]["latents"][0]
    return load_file(base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="ComfyUI's folder, the one with main.py")
    parser.add_argument("--keep", action="store_true", help="leave the server running, with its pages, to be looked at")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    start(checkout)
    import torch
    from comfyui_version import __version__ as version

    torch.set_grad_enabled(False)
    print(f"ComfyUI {version}")
    with tempfile.TemporaryDirectory() as folder, silence():
        base = Path(folder)
        furnish(base)
        bench = Bench("SD 1.5")
        noise = torch.randn(ROWS, 4, 16, 16, generator=torch.manual_seed(SEED))
        bench.noise = noise
        with serving(checkout, base, pages=options.keep) as address:
            choices = ask(f"{address}/object_info/GuidefoldLoadAdapter")["GuidefoldLoadAdapter"]["input"]["required"]
            print("adapters to choose from:", ", ".join(choices["adapter"][0]))
            guided = latent(base, run(address, workflow(None, SCALE)))
            rows = rows_of(base)
            assert set(rows) == {2 * ROWS}, rows
            print(f"CFG {SCALE:g}: {len(rows)} calls of {rows[0]} rows")
            print("  as sampled here:", close(guided, bench.sample(bench.patcher)))
            folded = latent(base, run(address, workflow("sd15-folded", SCALE)))
            rows = rows_of(base)
            assert rows == [ROWS] * STEPS, rows
            print(f"with the nodes: {len(rows)} calls of {rows[0]} rows")
            print("  as diffusers with the adapter:", close(folded, bench.expected()))
            wrong = run(address, workflow("sdxl-folded", SCALE))["status"]
            told = next(said for kind, said in wrong["messages"] if kind == "execution_error")
            assert told["node_id"] == "3" and "\n" not in told["exception_message"].strip(), told
            print("another model's adapter:", told["exception_message"].strip())
            if options.keep:
                print(f"{address}\n{json.dumps(workflow('sd15-folded', SCALE))}", flush=True)
                input("press Enter to stop the server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
