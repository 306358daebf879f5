"""A dozen families of the support page, tried for real; the page is what its results say."""

import json

import pytest
from support.check import Row, check
from support.page import PAGE, RESULTS, page

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
    assert max(seen.target_error, seen.result_error) < 1e-3


def test_the_page_is_made_of_the_results(rows):
    entry = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(list(rows.values()), entry["diffusers"], entry["torch"])
    assert sum(not row.why for row in rows.values()) >= 200


def test_there_is_no_pipelines_name_in_the_code():
    import diffusers

    from guidefold import capture

    root = next(iter(capture.__path__))
    code = "".join(path.read_text(encoding="utf-8") for path in __import__("pathlib").Path(root).glob("*.py"))
    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and name != "DiffusionPipeline"]
    assert not [name for name in names if name in code]
