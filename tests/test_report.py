import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from guidefold.errors import InputError
from guidefold.evaluation import figures
from guidefold.evaluation.report import PictureRow, write_report
from guidefold.evaluation.results import VARIANTS, Evaluation, Interval, Row, Variant, replace_text

NASTY = "<script>alert(1)</script>\" onerror='x'"
LOG = [{"step": step, "loss": 1 / (step + 1)} for step in range(310)] + [{"step": 350, "validation": 0.1}]


def row(scale: float, variant: Variant) -> Row:
    compared = None if variant == "cfg" else 0.5
    return Row(
        guidance_scale=scale,
        variant=variant,
        passes=2 if variant == "cfg" else 1,
        seconds_per_image=0.8 if variant == "cfg" else 0.4,
        frechet=Interval(value=20 + scale, low=19, high=30),
        kernel_distance=-0.0001,
        clip_score=Interval(value=25, low=25, high=25),
        clip_difference=None if variant == "cfg" else Interval(value=-1, low=-2, high=0),
        psnr=compared,
        ssim=compared,
        feature_distance=compared,
    )


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return Evaluation(
        rows=[row(scale, variant) for scale in (4.0, 2.0) for variant in VARIANTS],
        recovered_by_scale={"2.0": 0.9, "4.0": 0.8},
        recovered_by_timestep={"975": 0.7, "25": 0.9, "475": 0.8},
        recovered_on_own_states={"2.0": 0.8, "4.0": 0.6},
        prompts=[NASTY, "a fox"],
        sampling_steps=20,
        device="test device",
        meta={"seed": 1},
    )


@pytest.fixture(scope="module")
def pictures() -> list[PictureRow]:
    images: dict[str, Image.Image] = {variant: Image.new("RGBA", (64, 64), "teal") for variant in VARIANTS}
    large = {"cfg": Image.new("RGB", (1024, 512), "teal")}
    return [
        PictureRow(prompt=NASTY, guidance_scale=4.0, images=images),
        PictureRow(prompt="large", guidance_scale=2.5, images=large),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, evaluation: Evaluation, pictures: list[PictureRow]) -> str:
    path = write_report(
        tmp_path_factory.mktemp("report") / "deep" / "report.html",
        title=NASTY,
        evaluation=evaluation,
        pictures=pictures,
        loss_log=LOG,
        command=f"guidefold eval {NASTY}",
        notes=[NASTY],
    )
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects the tags and attributes that a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_what_users_wrote_is_escaped(page: str):
    tags = Tags(page).found
    assert not [tag for tag, _ in tags if tag == "script"]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 6  # title, heading, note, prompt, alt texts, command


def test_nothing_is_fetched(page: str):
    assert set(re.findall(r"https?://[^\s\"'<)]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    for tag, attributes in Tags(page).found:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, name)
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_pictures_have_alt_texts_and_stay_small(page: str):
    images = [attributes for tag, attributes in Tags(page).found if tag == "img"]
    assert [image["alt"] for image in images] == [
        f"No guidance: {NASTY}, guidance scale 4",
        f"CFG: {NASTY}, guidance scale 4",
        f"Adapter: {NASTY}, guidance scale 4",
        "CFG: large, guidance scale 2.5",
    ]
    kinds = [(image["src"] or "").partition(";")[0] for image in images]
    assert kinds == ["data:image/png"] * 3 + ["data:image/jpeg"]
    assert len(page) < 200_000


def test_headlines_state_what_was_measured(page: str):
    for text in (
        "2 → 1",
        "2.00\N{MULTIPLICATION SIGN}",
        "85.0%",
        "70.0% on the adapter",
        "24.00 [19.00, 30.00]",
        "\N{MINUS SIGN}0.000100",
    ):
        assert text in page
    assert "25.00 [" not in page  # no interval was asked for


def test_a_report_leaves_out_what_is_absent(tmp_path: Path, evaluation: Evaluation):
    page = write_report(tmp_path / "a.html", title="t", evaluation=None, pictures=[], loss_log=[]).read_text()
    assert not {"svg", "table", "img", "dl"} & {tag for tag, _ in Tags(page).found}
    bare = Evaluation.from_dict({**evaluation.to_dict(), "rows": [], "recovered_by_scale": {}, "meta": {}})
    assert write_report(tmp_path / "b.html", title="t", evaluation=bare, pictures=[], loss_log=LOG[:1]).exists()


def test_pictures_must_be_of_known_variants():
    with pytest.raises(InputError, match="no variant 'guided'"):
        PictureRow(prompt="a fox", guidance_scale=2, images={"guided": Image.new("RGB", (2, 2))})


def test_figures_are_valid_svg_and_the_same_every_time(evaluation: Evaluation):
    def draw() -> list[str]:
        curves = [figures.metric_curves(evaluation), figures.metric_curve(evaluation, "frechet")]
        return [*curves, figures.timestep_curve(evaluation), figures.loss_curve(LOG), figures.cost_bars(evaluation)]

    drawn = draw()
    assert draw() == drawn
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert root.get("aria-label")
        assert "currentColor" in svg
        assert figures.INK not in svg


def test_figures_of_nothing_are_empty_axes(evaluation: Evaluation):
    empty = Evaluation.from_dict({**evaluation.to_dict(), "rows": [], "recovered_by_timestep": {}})
    for svg in (figures.metric_curves(empty), figures.timestep_curve(empty), figures.loss_curve([])):
        ElementTree.fromstring(svg)


def test_an_evaluation_survives_json(tmp_path: Path, evaluation: Evaluation):
    path = evaluation.save(tmp_path / "evaluation.json")
    assert Evaluation.load(path) == evaluation
    assert isinstance(Evaluation.load(path).rows[0].frechet, Interval)
    assert isinstance(Evaluation.load(path).rows[0].clip_difference, Interval)


def test_an_evaluation_refuses_numbers_that_are_not_finite(tmp_path: Path, evaluation: Evaluation):
    broken = Evaluation.from_dict({**evaluation.to_dict(), "recovered_by_scale": {"2.0": float("nan")}})
    with pytest.raises(InputError, match="cannot save an evaluation"):
        broken.save(tmp_path / "evaluation.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read an evaluation"),
        ("[]", "no JSON object"),
        ("{}", "incomplete Evaluation.*prompts"),
        ('{"colour": 1}', "unknown key 'colour' for Evaluation"),
        ('{"rows": [{"variant": "cfg"}]}', "incomplete Row"),
        ('{"rows": [{"variant": "b", "guidance_scale": 1, "passes": 1, "seconds_per_image": 1}]}', "variant is 'b'"),
    ],
)
def test_a_damaged_evaluation_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(InputError, match=message):
        Evaluation.load(tmp_path / "evaluation.json")


def test_averages_are_over_guidance_scales(evaluation: Evaluation):
    assert [item.guidance_scale for item in evaluation.of("adapter")] == [2, 4]
    assert evaluation.mean("cfg", "frechet") == 23
    assert evaluation.typical("cfg", "passes") == 2
    assert evaluation.mean("cfg", "psnr") is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = replace_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        replace_text(path, "\ud800")
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"]


def test_reports_open_without_torch():
    check = "import sys, guidefold.evaluation.report; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
