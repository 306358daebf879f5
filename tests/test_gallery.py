"""Pictures and figures of an evaluation survive the disk and become a report."""

import pytest
from PIL import Image

from guidefold.errors import InputError
from guidefold.evaluation import gallery
from guidefold.evaluation.evaluate import spread_over
from guidefold.evaluation.report import PictureRow
from guidefold.evaluation.results import Evaluation, Interval, Row


def results():
    def row(variant, passes, seconds):
        return Row(
            guidance_scale=4.0,
            variant=variant,
            passes=passes,
            seconds_per_image=seconds,
            frechet=Interval(value=0.2, low=0.1, high=0.3),
            clip_score=Interval(value=30.0, low=29.0, high=31.0),
            latent_distance=None if variant == "cfg" else 0.36,
        )

    return Evaluation(
        rows=[row("none", 1.0, 0.1), row("cfg", 2.0, 0.2), row("adapter", 1.0, 0.1)],
        recovered_by_scale={"4.0": 0.5},
        recovered_by_timestep={"500": 0.5},
        recovered_on_own_states={"4.0": 0.4},
        prompts=["a <b>fox</b>"],
        sampling_steps=4,
        device="cpu",
    )


def pictures():
    colours = {"none": "red", "cfg": "green", "adapter": "blue"}
    images = {name: Image.new("RGB", (8, 8), colour) for name, colour in colours.items()}
    return [PictureRow(prompt="a <b>fox</b>", guidance_scale=4.0, images=images)]


def test_pictures_come_back_as_they_were(tmp_path):
    gallery.save_results(tmp_path, results(), pictures())
    (loaded,) = gallery.load_pictures(tmp_path)
    assert (loaded.prompt, loaded.guidance_scale) == ("a <b>fox</b>", 4.0)
    assert all(loaded.images[name].tobytes() == image.tobytes() for name, image in pictures()[0].images.items())


def test_a_folder_becomes_a_report_with_escaped_prompts(tmp_path):
    gallery.save_results(tmp_path, results(), pictures())
    text = gallery.report_of(tmp_path).read_text(encoding="utf-8")
    assert "a &lt;b&gt;fox" in text
    assert "<b>fox" not in text


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"neither evaluation.json nor log.jsonl"):
        gallery.report_of(tmp_path)


def test_the_table_has_a_line_per_scale():
    expected = ["4", "2 and 1", "2.00", "50.0%", "0.36", "0.200", "0.200", "0.200", "30.0", "30.0", "30.0"]
    assert gallery.table_rows(results()) == [expected]


def test_the_grid_enlarges_small_pictures():
    columns = {name: [image] for name, image in pictures()[0].images.items()}
    sheet = gallery.grid(columns, ["a prompt with ünïcode and 🦊"])
    assert sheet.size == (3 * (128 + gallery.MARGIN), gallery.TITLE + 128 + gallery.MARGIN + gallery.TITLE)
    assert sheet.getpixel((64, gallery.TITLE + 64)) == (255, 0, 0)


def test_prompts_are_taken_evenly_and_again_where_there_are_too_few():
    assert spread_over(["a", "b", "c", "d"], 2) == ["a", "c"]
    assert spread_over(["a", "b"], 5) == ["a", "b", "a", "b", "a"]
