"""The page: what its buttons do is tested without a browser, and that it is served where its library is installed."""

import socket
from importlib.util import find_spec

import numpy as np
import pytest
from sampling import build
from zoo import message_of, pipeline

from guidefold import cli, looking
from guidefold.errors import InputError
from guidefold.evaluation.results import VARIANTS
from guidefold.page import serve
from guidefold.page.workbench import AMPLIFIED, STRIP, Workbench, quietly


@pytest.fixture
def bench() -> Workbench:
    pipe = pipeline()
    adapter = build(pipe)
    adapter.trained = {"scale_min": 2.0, "scale_max": 6.0}
    return Workbench(pipe, adapter.attach(pipe), steps=2, call={"height": 16, "width": 16})


def test_variants_are_compared_from_one_noise(bench):
    found = bench.compare("a fox", "", 4.0, 7)
    assert [(name, shot.passes) for name, shot in found.shots.items()] == [("none", 1), ("cfg", 2), ("adapter", 1)]
    pixels = {name: np.asarray(found.shots[name].image).astype(float) / 255 for name in VARIANTS}
    apart = np.abs(pixels["adapter"] - pixels["cfg"])
    assert found.mean == pytest.approx(apart.mean(), abs=3e-3) and found.mean > 0 and found.bare_mean > 0
    shown = np.asarray(found.difference).astype(float) / 255
    assert np.abs(shown - np.clip(AMPLIFIED * apart, 0, 1)).max() < 0.03
    again = bench.compare("a fox", "", 4.0, 7)
    assert again.mean == found.mean and bench.compare("a fox", "", 4.0, 8).mean != found.mean
    same = bench.compare("a fox", "", 1.0, 7)  # at scale 1 all three are the bare model
    assert same.mean == same.bare_mean == 0


def test_the_strip_goes_over_the_trained_scales(bench):
    found = bench.over_scales("a fox", "", 0)
    assert [*found] == [2, 3, 4, 5, 6] and len(found) == STRIP
    pictures = {one["adapter"].image.tobytes() for one in found.values()}
    assert len(pictures) == STRIP and all([*one] == ["cfg", "adapter"] for one in found.values())


def test_a_negative_prompt_is_for_adapters_that_read_one(bench):
    assert not bench.takes_negative
    plain, refused = (bench.compare("a fox", negative, 4.0, 0) for negative in ("", "a cat"))
    assert plain.shots["cfg"].image.tobytes() == refused.shots["cfg"].image.tobytes()


def test_what_cannot_be_served_is_one_line(monkeypatch, capsys):
    with socket.create_server((serve.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen at port {port} (" in message_of(InputError, lambda: serve.check_port(port))
    assert message_of(InputError, lambda: serve.check_port(70000)) == "port is 70000; give less than 65536"
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert cli.main(["ui"]) == 2
    assert "guidefold ui needs nicegui; pip install 'guidefold[ui]'" in capsys.readouterr().err


def test_the_command_serves_the_named_model_with_its_adapter(monkeypatch):
    served = []
    monkeypatch.setattr(looking, "check_installed", lambda: None)
    monkeypatch.setattr(looking, "check_port", lambda port: None)
    monkeypatch.setattr(looking, "serve", lambda *arguments: served.append(arguments))
    assert cli.main(["ui", "--port", "8200", "--sampling-steps", "3"]) == 0
    ((bench, title, port),) = served
    assert (title, port) == ("bundled, adapter bundled, 3 steps", 8200) and bench.scales == (1.5, 6.0)
    assert bench.adapter.attached and bench.compare("red apple, noto", "", 4.0, 0).mean > 0


def test_sampling_says_nothing_in_the_terminal(bench):
    assert quietly(bench.compare, "a fox", "", 20.0, 0).mean > 0  # far outside the trained range, which warns


@pytest.mark.skipif(find_spec("nicegui") is None, reason="the extra ui is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_page_is_served_and_asks_for_nothing_elsewhere(bench):
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from nicegui import ui

    app = FastAPI()
    serve.build(bench, "tiny, adapter tiny")
    ui.run_with(app)
    with TestClient(app) as client:
        page = client.get("/").text
    for text in ("Guidance in one forward pass", "tiny, adapter tiny", "Negative prompt", "trained from 2 to 6"):
        assert text in page
    assert not [one for one in page.split('"') if one.startswith(("http://", "https://"))]
