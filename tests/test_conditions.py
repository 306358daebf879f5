"""Prompts are read with clear errors; draws are pure functions of (seed, index) that keep their laws."""

import json
from collections import Counter

import pytest

from guidefold.config import TrajectoryConfig
from guidefold.errors import InputError
from guidefold.trajectories.conditions import draw, hashed, kept_steps
from guidefold.trajectories.prompts import read_conditions

PROMPTS = [f"prompt {number}" for number in range(7)]


def test_text_is_stripped_and_blanks_bom_and_repeats_are_skipped(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa fox \r\n\n  \n\tein Bär\u2028here\r\na fox".encode())
    assert read_conditions(path) == ["a fox", "ein Bär\u2028here"]


def test_jsonl(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('\ufeff{"prompt": " a fox ", "id": 3}\n\n{"prompt": "b\u2028ear"}\n', encoding="utf-8")
    assert read_conditions(str(path)) == ["a fox", "b\u2028ear"]


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("p.json", '["a fox", {"prompt": " a cat "}]', ["a fox", "a cat"]),
        ("p.JSON", '\ufeff[\n {"prompt": "a\\nfox", "id": 1},\n {"prompt": "a cat"}\n]\n', ["a\nfox", "a cat"]),
        ("p.csv", 'prompt,seed\r\n"a fox, running",1\r\n\r\na cat,2\r\n', ["a fox, running", "a cat"]),
        ("p.csv", 'seed, Prompt \n1,"say ""fox"""\n2,"two\nlines"\n', ['say "fox"', "two\nlines"]),
        ("p.csv", "a fox\na cat\na fox\n", ["a fox", "a cat"]),
        ("p.csv", "\ufeffprompt\na fox\u2028here\n", ["a fox\u2028here"]),
        ("p.tsv", "id\tprompt\n1\ta fox, running\n", ["a fox, running"]),
        ("p.txt", 'prompt,seed\n"a fox",1\n[', ["prompt,seed", '"a fox",1', "["]),
    ],
)
def test_files_are_read_as_what_they_are(tmp_path, name, content, prompts):
    (tmp_path / name).write_bytes(content.encode())
    assert read_conditions(tmp_path / name) == prompts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", b"", "holds no prompts"),
        ("p.json", b"[]", "holds no prompts"),
        ("p.json", b'{"prompt": "a"}', "holds no list; write a list of texts"),
        ("p.json", b'["a", 3]', 'item 2: no text under "prompt"'),
        ("p.json", b'["a"', "Expecting ',' delimiter"),
        ("p.json", b"[" * 200_000, "nested too deeply"),
        ("p.json", b'["\\ud83e"]', "item 1: half a character (U+D83E) at place 1"),
        ("p.jsonl", b"[" * 200_000, "line 1: nested too deeply"),
        ("p.jsonl", b'{"prompt": "a \\udd8a"}', "line 1: half a character (U+DD8A) at place 3"),
        ("p.csv", b"", "holds no prompts"),
        ("p.csv", b"prompt\n\n", "holds no prompts"),
        ("p.csv", b"text,seed\na,1", 'has no column "prompt" among 2'),
        ("p.csv", b"prompt,prompt\na,1", 'has 2 column "prompt" among 2'),
        ("p.csv", b"prompt,seed\na, b,1", "line 2: 3 cells where the first line has 2"),
        ("p.csv", b"a fox\na cat, red", "line 2: 2 cells where the first line has 1"),
        ("p.csv", b"prompt,seed\n ,1", 'line 2: no text under "prompt"'),
        ("p.csv", b'prompt\n"a fox', "line 2: unexpected end of data"),
        ("p.txt", None, "there is no file"),
        ("p.txt", b"a fox\n\xff\xfe", "not UTF-8 at byte 6"),
        ("p.txt", b"\xef\xbb\xbfab\xff", "not UTF-8 at byte 5"),
        ("p.txt", b"", "holds no prompts"),
        ("p.txt", b" \n\n", "holds no prompts"),
        ("p.jsonl", b"\n", "holds no prompts"),
        ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt": ', "line 3: "),
        ("p.jsonl", b'{"prompt": "a"}\n["b"]', 'line 2: no text under "prompt"'),
        ("p.jsonl", b'{"prompt": 3}', 'line 1: no text under "prompt"'),
        ("p.jsonl", b'{"prompt": " "}', 'line 1: no text under "prompt"'),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_conditions(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_conditions(tmp_path)


def test_every_condition_comes_once_before_any_comes_twice():
    config = TrajectoryConfig(seed=5)
    epochs = [[draw(config, PROMPTS, 7 * epoch + i).prompt for i in range(7)] for epoch in range(20)]
    assert all(sorted(epoch) == PROMPTS for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 15


def test_a_draw_depends_on_seed_and_index_only():
    config = TrajectoryConfig(seed=3)
    forward = [draw(config, PROMPTS, index) for index in range(50)]
    backward = [draw(config, PROMPTS, index) for index in reversed(range(50))]
    assert forward == backward[::-1]
    other = [draw(TrajectoryConfig(seed=4), PROMPTS, index) for index in range(50)]
    assert not {d.seed for d in forward} & {d.seed for d in other}
    assert all(d.prompt in PROMPTS and d.index == i for i, d in enumerate(forward))


def test_draws_are_the_same_on_every_machine():
    assert hashed(3, "noise", 0) == 532719473131703147
    assert draw(TrajectoryConfig(seed=3), PROMPTS, 10).prompt == "prompt 2"
    assert kept_steps(TrajectoryConfig(seed=3), 10) == [2, 4, 7, 9, 12, 14, 17, 19]
    assert kept_steps(TrajectoryConfig(seed=3), 10, 20) == [2, 4, 7, 9, 12, 14, 17, 19]


def test_scales_are_uniform_and_in_range():
    config = TrajectoryConfig(scale_min=2.0, scale_max=4.0)
    scales = [draw(config, PROMPTS, index).guidance_scale for index in range(4000)]
    assert 2 <= min(scales) < 2.01
    assert 3.99 < max(scales) <= 4
    quarters = Counter(int((scale - 2) * 2) for scale in scales)
    assert all(abs(quarters[q] - 1000) < 120 for q in range(4))
    assert draw(TrajectoryConfig(scale_min=3, scale_max=3), PROMPTS, 0).guidance_scale == 3


def test_noise_seeds_differ_and_fit_a_generator():
    seeds = [draw(TrajectoryConfig(), PROMPTS, index).seed for index in range(2000)]
    assert len(set(seeds)) == 2000
    assert 0 <= min(seeds) < 2**62 < max(seeds) < 2**63


def test_no_conditions():
    with pytest.raises(InputError, match="give at least one prompt"):
        draw(TrajectoryConfig(), [], 0)


@pytest.mark.parametrize(("keep", "steps"), [(8, 20), (1, 20), (20, 20), (2, 3), (7, 1000), (1, 1)])
def test_kept_steps_are_distinct_even_and_equally_likely(keep, steps):
    config = TrajectoryConfig(keep=keep, sampling_steps=steps)
    kept = [kept_steps(config, index) for index in range(1000)]
    for row in kept:
        assert len(row) == len(set(row)) == keep
        assert row == sorted(row)
        # Step s covers [s, s + 1) and stratum k is [k S / K, (k + 1) S / K): they overlap.
        assert all(k * steps < (s + 1) * keep and s * keep < (k + 1) * steps for k, s in enumerate(row))
    counts = Counter(step for row in kept for step in row)
    if steps <= 20:
        assert all(abs(counts[s] / 1000 - keep / steps) < 0.06 for s in range(steps))


@pytest.mark.parametrize(("keep", "visits"), [(4, 15), (4, 9), (8, 15), (4, 5), (8, 3)])
def test_visits_are_equally_likely_however_many_there_are(keep, visits):
    config = TrajectoryConfig(keep=keep, sampling_steps=8)
    kept = [kept_steps(config, index, visits) for index in range(1000)]
    most = min(keep, visits)
    assert all(len(set(row)) == len(row) == most and row == sorted(row) for row in kept)
    counts = Counter(visit for row in kept for visit in row)
    assert all(abs(counts[v] / 1000 - most / visits) < 0.06 for v in range(visits)) and max(counts) < visits


def test_draws_serialise():
    assert json.dumps(vars(draw(TrajectoryConfig(), PROMPTS, 1)))


def test_a_prompt_has_one_number_in_every_list():
    first = {draw(TrajectoryConfig(), PROMPTS, index).prompt for index in range(7)}
    other = [draw(TrajectoryConfig(seed=1), ["new", *reversed(PROMPTS)], index) for index in range(8)]
    numbers = {one.prompt: one.condition for one in other}
    assert first < numbers.keys() and len(set(numbers.values())) == 8
    assert all(0 <= number < 2**63 for number in numbers.values())
    assert all(draw(TrajectoryConfig(), PROMPTS, index).condition in numbers.values() for index in range(7))
