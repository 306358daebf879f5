"""Fixtures that several files of tests share."""

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from runs import DRAWN, PROMPTS, SOURCES, run
from sampling import build
from zoo import pipeline

from guidefold.distillation.run import record
from guidefold.keeping import Adapter


@pytest.fixture
def pipe() -> StableDiffusionPipeline:
    return pipeline()


@pytest.fixture
def adapter(pipe) -> Adapter:
    return build(pipe).attach(pipe)


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    return record(pipeline(), PROMPTS, tmp_path_factory.mktemp("recorded") / "store", DRAWN).folder


@pytest.fixture(scope="session")
def finished(store, tmp_path_factory) -> dict[str, Path]:
    """Return a run of each source that nothing interrupted."""
    folders = {source: tmp_path_factory.mktemp(source) for source in SOURCES}
    for source, folder in folders.items():
        run(pipeline(), folder, store, source=source)
    return folders
