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
    paths = os.pathsep.join([str(here), str(here.parent)])
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
