"""Two processes, as accelerate launches them, record one store and train one adapter: weights whole, or shared out.

One pair of processes serves all tests: to start is most of what it costs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import SHAPE, rows, settings
from safetensors.torch import load_file
from torch.testing import assert_close
from zoo import pipeline

from guidefold.distillation.run import train
from guidefold.trajectories.identity import fingerprint

# five states in two processes: the one with two does as many passes as the other, or both would hang
UNEQUAL = settings(batch_size=5, steps=2, checkpoint_every=2)
SCRIPT = """
import json
import os
import sys
from pathlib import Path

from runs import DRAWN, PROMPTS, SHAPE
from test_processes import UNEQUAL
from zoo import pipeline

from guidefold.distillation.run import distill, train
from guidefold.processes import place
from guidefold.trajectories.identity import fingerprint

output = Path(sys.argv[1])
launched = os.environ.pop("ACCELERATE_USE_FSDP")
distill(pipeline(), PROMPTS, output / "whole", adapter=SHAPE, trajectory=DRAWN, config=UNEQUAL)

os.environ["ACCELERATE_USE_FSDP"] = launched
unet = pipeline().unet
before = fingerprint(unet)
adapter = train(unet, output / "shared", store=output / "whole" / "store", adapter=SHAPE, config=UNEQUAL)
told = {"before": before, "after": fingerprint(unet), "steps": adapter.trained["steps"]}
told["shared"] = sum(hasattr(value, "full_tensor") for value in unet.parameters())
(output / f"{place()[0]}.json").write_text(json.dumps(told))
"""
LAUNCH = [
    "accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--num_machines", "1",
    "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
]  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """Return the folder that two processes have filled."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "script.py").write_text(SCRIPT)
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    # accelerate would give each process one thread, and a sum over one is rounded otherwise than over two
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", *LAUNCH, folder / "script.py", folder]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("Training: 2/2") == 2  # one process speaks for both, once in each run
    return folder


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory) -> Path:
    """Return what one process trains of the same states."""
    folder = tmp_path_factory.mktemp("alone")
    train(pipeline(), folder, store=store, adapter=SHAPE, config=UNEQUAL)
    return folder


def test_two_processes_record_what_one_does(pair, store):
    recorded = {path.name: path.read_bytes() for path in (pair / "whole" / "store").iterdir()}
    assert recorded == {path.name: path.read_bytes() for path in store.iterdir()}


@pytest.mark.parametrize("weights", ["whole", "shared"])
def test_two_processes_train_what_one_does(weights, pair, alone):
    one, two = (load_file(folder / "last" / "model.safetensors") for folder in (alone, pair / weights))
    for name, value in one.items():
        assert_close(two[name], value, rtol=2e-3, atol=2e-3)
    for ours, theirs in zip(rows(pair / weights), rows(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3)


def test_every_process_knows_the_model_again_whose_weights_are_shared_out(pair):
    first, second = (json.loads((pair / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and first["shared"] > 0
    assert first["before"] == first["after"] == fingerprint(pipeline().unet)
