"""The pure parts of the scripts that build the teachers: who is held out, what prompts say, how training resumes."""

import os
import signal
import sys
from collections import OrderedDict
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTextModel

TEACHERS = Path(__file__).parent.parent / "teachers"
MODULES = "autoencoder clip conditions data dit emoji export iconify judge loop orthogonal pack parts sd3 train unet"


@pytest.fixture(scope="module")
def teachers():
    """The scripts' modules, which find each other by their folder; forgotten afterwards, as their names are common."""
    before = set(sys.modules)
    sys.path.insert(0, str(TEACHERS))
    yield SimpleNamespace(**{name: import_module(name) for name in MODULES.split()})
    sys.path.remove(str(TEACHERS))
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == TEACHERS:
            del sys.modules[name]


def picture(emoji, name: str, style: str, split: str):
    return emoji.Emoji(name=name, style=style, wordings=(f"{name}, {style}",), split=split, svg="")


def test_splits_depend_on_names_alone_and_have_their_shares(teachers):
    pairs = [(f"thing {i}", style) for i in range(2000) for style in ("noto", "flat")]
    splits = [teachers.emoji.split_of(*pair) for pair in pairs]
    assert splits == [teachers.emoji.split_of(*pair) for pair in pairs]
    assert splits.count("names") / len(pairs) == pytest.approx(0.03, abs=0.01)
    assert splits.count("pairs") / len(pairs) == pytest.approx(0.05, abs=0.01)
    by_name = {name: {s for (n, _), s in zip(pairs, splits, strict=True) if n == name} for name, _ in pairs}
    assert all(found == {"names"} for found in by_name.values() if "names" in found)


def test_a_pair_whose_name_no_style_teaches_counts_as_a_held_out_name(teachers):
    one = picture(teachers.emoji, "fox", "noto", "pairs")
    assert [e.split for e in teachers.emoji.settled([one])] == ["names"]
    both = [one, picture(teachers.emoji, "fox", "flat", "train")]
    assert [e.split for e in teachers.emoji.settled(both)] == ["pairs", "train"]


def test_prompts_say_name_tone_and_style_in_four_ways(teachers):
    tone = " with dark skin tone"
    found = teachers.emoji.wordings("waving hand", tone, "flat", "hand wave", ("hello", "bye", "hi there", "greet"))
    assert found[0] == "waving hand with dark skin tone, flat"
    assert len(set(found)) == 4
    assert all(tone in prompt and "flat" in prompt for prompt in found)
    assert sum(word in found[3] for word in ("hello", "bye", "hi there", "greet")) == 3


@pytest.mark.parametrize(
    ("slug", "words", "tone"),
    [
        ("artist-medium-light", "artist", " with medium light skin tone"),
        ("artist-dark-skin-tone", "artist", " with dark skin tone"),
        ("mermaid-tone1", "mermaid", " with light skin tone"),
        ("fox-face-2", "fox-face", ""),
        ("full-moon", "full-moon", ""),
    ],
)
def test_slugs_lose_their_skin_tone(teachers, slug, words, tone):
    assert teachers.emoji.untoned(slug) == (words, tone)


def test_letters_written_together_are_read_as_the_fewest_words(teachers):
    assert teachers.emoji.segmented("foxweary", ["fox", "weary", "we", "ear"]) == "fox weary"


def test_labels_are_said_as_people_say_them(teachers):
    assert teachers.iconify.spoken("flag: Chad") == "flag of chad"
    assert teachers.iconify.spoken("man: beard") == "man with beard"
    assert teachers.iconify.plain("2764-FE0F") == "2764"
    assert "flag-laos" in teachers.iconify.readings("flag-for-flag-laos")


def test_the_rate_warms_up_stays_and_cools_down(teachers):
    plan = teachers.loop.Plan(steps=100, batch=1, peak=2.0, warm=10, cooldown=20)
    rates = [teachers.loop.learning_rate(step, plan) for step in range(101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[10:81] == [2.0] * 71
    assert rates[90] == pytest.approx(1.0)
    assert rates[100] == 0


def trained(teachers, run: Path, *stops: int) -> dict[str, torch.Tensor]:
    """Return the weights of a small training that is interrupted at each of `stops` but the last."""
    points = torch.arange(12.0)

    def loss_of(indices, generator):
        x = points[indices, None] + torch.randn(len(indices), 1, generator=generator)
        return (model(x) - 3 * x).square().mean()

    plan = teachers.loop.Plan(steps=max(stops), batch=5, peak=1e-2, warm=2, orthogonal=True)
    for stop in stops:
        model = torch.nn.Sequential(
            OrderedDict(rest=torch.nn.Linear(1, 1), blocks=torch.nn.Sequential(torch.nn.Linear(1, 1)))
        )
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.3)
        teachers.loop.fit("line", model, loss_of, size=12, plan=replace(plan, steps=stop), run=run)
    return model.state_dict()


def test_an_interrupted_training_ends_like_an_uninterrupted_one(teachers, tmp_path):
    whole, parts = trained(teachers, tmp_path / "whole", 11), trained(teachers, tmp_path / "parts", 4, 7, 11)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert min(abs(value.item() - 0.3) for value in whole.values()) > 1e-3  # either optimizer has moved its part


def test_orthogonal_updates_have_singular_values_of_about_one(teachers):
    for shape in ((6, 20), (20, 6)):
        values = torch.linalg.svdvals(
            teachers.orthogonal.orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
        )
        assert values.min() > 0.6 and values.max() < 1.3


def test_a_process_asked_to_end_finishes_its_step_and_keeps_it(teachers, tmp_path):
    model, calls = torch.nn.Linear(1, 1), []

    def loss_of(indices, generator):
        calls.append(indices)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return model(torch.ones(1, 1)).square().mean()

    before = signal.getsignal(signal.SIGTERM)
    plan = teachers.loop.Plan(steps=100, batch=2, peak=1e-2)
    teachers.loop.fit("line", model, loss_of, size=4, plan=plan, run=tmp_path)
    state = teachers.loop.State(torch.nn.Linear(1, 1), plan)
    state.load(tmp_path / "line.safetensors")
    assert state.step == len(calls) == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_tenth_of_the_prompts_are_dropped_and_the_rest_are_of_their_pictures(teachers):
    ids = torch.arange(40).reshape(10, 4, 1)
    texts = teachers.conditions.Texts(ids=ids, none=torch.tensor([99]), groups=[[2 * i, 2 * i + 1] for i in range(5)])
    batches = [texts.batch(torch.arange(5), torch.Generator().manual_seed(seed)) for seed in range(120)]
    pictures, told = torch.stack([p for p, _ in batches]), torch.stack([t for _, t in batches])[..., 0]
    dropped = told == 99
    assert dropped.float().mean() == pytest.approx(0.1, abs=0.04)
    assert torch.equal((told // 4)[~dropped], pictures[~dropped])
    assert set(pictures.unique().tolist()) == set(range(10))
    assert torch.equal(pictures // 2, torch.arange(5).expand(120, 5))


def test_a_pack_gives_back_what_it_was_given(teachers, tmp_path):
    made = [picture(teachers.emoji, f"thing {i}", "flat", "train") for i in range(3)]
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    teachers.pack.write(made, pixels, tmp_path / teachers.pack.NAME)
    emojis, found = teachers.data.everything(tmp_path)
    assert emojis == made
    assert torch.equal(found, pixels)


@pytest.fixture(scope="module")
def shared(teachers):
    """Untrained parts, and emoji for them."""
    emojis = [picture(teachers.emoji, f"thing {i % 4}", style, "train") for i, style in enumerate(["noto", "flat"] * 4)]
    words = teachers.clip.tokenizer([e.caption for e in emojis] * 2)
    judge = teachers.clip.model(words)
    codec = teachers.autoencoder.model()
    tower = teachers.clip.tower(judge, CLIPTextModel)
    return teachers.parts.Parts(words=words, judge=judge, tower=tower, codec=codec), emojis


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_each_teacher_learns_and_becomes_a_pipeline_that_guides(teachers, shared, name, tmp_path):
    parts, emojis = shared
    latents, groups = torch.randn(len(emojis), 4, 16, 16), [[i] for i in range(len(emojis))]
    ids = teachers.data.tokens([e.caption for e in emojis], parts.words)[:, None].expand(-1, 4, -1)
    texts = teachers.conditions.Texts(ids=ids, none=teachers.data.tokens([""], parts.words)[0], groups=groups)
    plan = teachers.loop.Plan(steps=5, batch=4, peak=3e-3, warm=1)
    if name == "a":
        teachers.unet.train(latents, texts, teachers.unet.Teacher(parts.tower), tmp_path, plan)
    elif name == "b":
        teachers.dit.train(latents, emojis, groups, teachers.dit.model(), tmp_path, plan)
    else:
        teachers.sd3.train(latents, texts, teachers.sd3.Teacher(parts.words), tmp_path, plan)
    teachers.export.save(name, tmp_path / name, parts, emojis, tmp_path / f"{name}.safetensors")
    size = sum(path.stat().st_size for path in (tmp_path / name).rglob("*"))
    assert size < {"a": 21e6, "b": 10e6, "c": 10e6}[name]
    pipe = teachers.judge.load(tmp_path / name, "cpu")
    one, other = (teachers.judge.drawn(pipe, emojis[:2], scale, 2) for scale in (1.0, 3.0))
    assert one.shape == (2, 3, 64, 64)
    assert not torch.equal(one, other)
