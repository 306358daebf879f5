"""Which of several processes this is: what the environment says by half, or wrongly, is one line and no waiting."""

import pytest
from zoo import message_of

from guidefold.errors import InputError
from guidefold.processes import own_gpu, place

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
LAUNCHED = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    def make(**values):
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"RANK": "0"}, "RANK is 0 in the environment, but WORLD_SIZE is not set; start several processes with"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 in the environment, but RANK is not set"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1' in the environment"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK is 'first' in the environment"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is '' in the environment"),
        ({"RANK": "2", "WORLD_SIZE": "2", **LAUNCHED}, "RANK is 2 of WORLD_SIZE 2, which counts from 0"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK is 0 of WORLD_SIZE 0"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2 in the environment, but MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "but MASTER_PORT is not set"),
    ],
)
def test_half_an_environment_is_refused(environment, values, told):
    environment(**values)
    assert told in message_of(InputError, place) and told in message_of(InputError, own_gpu)


def test_a_whole_one_is_read(environment):
    environment()
    assert place() == (0, 1) and own_gpu() == "cuda"
    environment(RANK="0", WORLD_SIZE="1")
    assert place() == (0, 1)
    environment(RANK="1", WORLD_SIZE="3", LOCAL_RANK="1", **LAUNCHED)
    assert place() == (1, 3) and own_gpu() == "cuda:1"
