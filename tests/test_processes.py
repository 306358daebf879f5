"""Several processes, as torchrun starts them, record one store and train one adapter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import rows
from safetensors.torch import load_file
from torch.testing import assert_close

SCRIPT = """
import sys
from pathlib import Path

from runs import DRAWN, PROMPTS, SHAPE, settings
from zoo import pipeline

from guidefold.distillation.run import distill

adapter = distill(pipeline(), PROMPTS, Path(sys.argv[1]), adapter=SHAPE, trajectory=DRAWN, config=settings())
assert adapter.trained["steps"] > 0
"""


def test_two_processes_do_what_one_does(store, finished, tmp_path):
    script, output = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SCRIPT)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    # torchrun would give each process one thread, and a sum over one is rounded otherwise than over two
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*launch, script, output], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("Training: 6/6") == 1  # one process speaks for both
    recorded = {path.name: path.read_bytes() for path in (output / "store").iterdir()}
    assert recorded == {path.name: path.read_bytes() for path in store.iterdir()}
    one, two = (load_file(folder / "last" / "model.safetensors") for folder in (finished["recorded"], output))
    for name, value in one.items():
        assert_close(two[name], value, rtol=2e-3, atol=2e-3)
    for ours, theirs in zip(rows(output), rows(finished["recorded"]), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)


SHARED = """
import sys
from pathlib import Path

import torch
from runs import SHAPE, settings
from zoo import pipeline

from guidefold.distillation.run import train
from guidefold.trajectories.identity import fingerprint

unet = pipeline().unet
before = fingerprint(unet)
train(unet, Path(sys.argv[1]), store=sys.argv[2], adapter=SHAPE, config=settings(batch_size=5))
assert any(hasattr(value, "full_tensor") for value in unet.parameters())
assert fingerprint(unet) == before
"""


def test_two_processes_share_out_the_base_model_with_unequal_work(store, tmp_path):
    """Five states in two processes: the one with two does as many passes as the other, or both would hang."""
    script, here = tmp_path / "script.py", Path(__file__).parent
    script.write_text(SHARED)
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_FSDP": "true"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = [*launch, script, tmp_path / "run", store]
    ran = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    alone = subprocess.run(
        [sys.executable, "-c", SHARED.replace("assert any", "assert not any"), str(tmp_path / "one"), str(store)],
        env=environment | {"ACCELERATE_USE_FSDP": "false"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    for ours, theirs in zip(rows(tmp_path / "run"), rows(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)
