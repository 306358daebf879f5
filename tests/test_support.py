"""A dozen families of the support page, tried for real; the page is what its results say."""

import json
from pathlib import Path

import diffusers
import pytest
from support.check import Row, check
from support.page import PAGE, RESULTS, page

import guidefold

README = PAGE.parents[1] / "README.md"
SOURCE = Path(guidefold.__file__).parent

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

FAMILIES = (
    "StableDiffusionXLPipeline", "StableDiffusionControlNetPipeline", "StableDiffusionXLPAGPipeline", "DiTPipeline",
    "PixArtSigmaPipeline", "StableDiffusion3Pipeline", "FluxPipeline", "QwenImagePipeline", "ZImagePipeline",
    "SanaPipeline", "WanImageToVideoPipeline", "LTX2Pipeline", "HunyuanVideo15Pipeline", "Cosmos2VideoToWorldPipeline",
    "KandinskyV22CombinedPipeline", "StableCascadeDecoderPipeline", "StableAudioPipeline",
)  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    return {row["pipeline"]: Row(**row) for row in kept}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_works_as_its_row_says(name, rows):
    seen, kept = check(name), rows[name]
    assert not seen.why
    for field in ("denoisers", "off", "rows_guided", "rows_folded", "calls_guided", "calls_folded", "targets"):
        assert getattr(seen, field) == getattr(kept, field), field
    assert seen.rows_folded < seen.rows_guided
    assert max(seen.target_error, seen.result_error, seen.replay_error) < 1e-3


def test_the_page_is_made_of_the_results(rows):
    entry = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(list(rows.values()), entry["diffusers"], entry["torch"])
    assert sum(not row.why for row in rows.values()) >= 200


def test_the_readme_says_how_many_work(rows):
    assert f"**{sum(not row.why for row in rows.values())} pipelines of diffusers**" in README.read_text(
        encoding="utf-8"
    )


def test_there_is_no_pipelines_name_in_the_code():
    parts = ("adapters", "capture", "distillation", "trajectories")
    code = "".join(path.read_text(encoding="utf-8") for part in parts for path in (SOURCE / part).glob("*.py"))
    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and name != "DiffusionPipeline"]
    assert len(names) > 200 and not [name for name in names if name in code]
