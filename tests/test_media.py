"""Films and sounds are sampled, kept, judged and shown as pictures are."""

import json
import math
import re
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.case import build
from zoo import shake

from guidefold import cli, models
from guidefold.config import AdapterConfig, EvalConfig, TrajectoryConfig
from guidefold.errors import ModelError
from guidefold.evaluation import media, metrics, saving
from guidefold.evaluation.evaluate import evaluate
from guidefold.evaluation.judge import Judge
from guidefold.keeping import Adapter
from guidefold.keeping.hub import save_pretrained
from guidefold.trajectories.recorder import Recorder

# what diffusers itself warns of
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

FILM = {"height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16}
SOUND = {"audio_end_in_s": 2.0}
CASES = {"WanPipeline": FILM, "StableAudioPipeline": SOUND}
PROMPTS = ["a red fox", "a dog", "a tree", "a car"]


def folded(name):
    """Return a tiny pipeline and an adapter for it that does a little."""
    pipe = build(name).pipe
    recorder = Recorder(pipe, PROMPTS, TrajectoryConfig(record_batch=1, shard=1), **CASES[name])
    adapter = Adapter.build(recorder.denoiser, recorder.spec, AdapterConfig(rank=2, width=8))
    shake(adapter)
    return pipe, adapter


def options(call):
    return [part for name, value in call.items() for part in ("--call", f"{name}={value}")]


@pytest.mark.parametrize("name", CASES)
def test_films_and_sounds_go_from_the_command_line_to_files_and_a_report(name, tmp_path, monkeypatch, capsys):
    pipe, adapter = folded(name)
    save_pretrained(adapter, tmp_path / "adapter")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    pipe.save_pretrained(tmp_path / "model")
    common = ["--model", str(tmp_path / "model"), "--adapter", str(tmp_path / "adapter"), *options(CASES[name])]
    common += ["--sampling-steps", "3"]
    assert cli.main(["sample", "a fox", "--compare", "--guidance-scale", "4", *common, "--output", str(tmp_path)]) == 0
    made = "a film" if name == "WanPipeline" else "a sound"
    told = capsys.readouterr().out
    assert ("the extra video" in told) == (name == "WanPipeline" and not saving.makes_mp4())
    assert re.search(rf"cfg at 4: 2 passes a step, [\d.]+ s {made}\n.*adapter at 4: 1 passes", told)
    with Image.open(tmp_path / "000-adapter-4.png") as shown, Image.open(tmp_path / "compare-4.png") as sheet:
        assert sheet.width == 3 * (shown.width + 4)
        size = shown.size
    check = check_film if name == "WanPipeline" else check_sound
    check(tmp_path, size)
    judging = ["--conditions", str(tmp_path / "prompts.txt"), "--images", "4", "--scales", "4", "--bootstrap", "0"]
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    assert cli.main(["eval", *common, *judging, "--output", str(tmp_path / "eval")]) == 0
    rows = {row["variant"]: row for row in json.loads((tmp_path / "eval" / "evaluation.json").read_text())["rows"]}
    assert rows["none"]["latent_distance"] == pytest.approx(1) and rows["adapter"]["latent_distance"] > 0
    assert rows["adapter"]["frechet"] is None and rows["cfg"]["latent_distance"] is None
    own = "motion" if name == "WanPipeline" else "spectral_distance"
    assert rows["adapter"][own] > 0
    page = (tmp_path / "eval" / "report.html").read_text(encoding="utf-8")
    assert 'class="three wide"' in page and "Latents&#39; distance" in page


def check_film(folder: Path, size: tuple[int, int]) -> None:
    assert size == (5 * 32, 32)  # all five frames side by side
    with Image.open(folder / "000-adapter-4.gif") as film:
        assert (film.size, film.n_frames, film.info["duration"]) == ((32, 32), 5, 120)  # a GIF counts hundredths
    assert (folder / "000-adapter-4.mp4").exists() == saving.makes_mp4()


def test_an_mp4_has_all_frames_at_their_pace_and_even_sides(tmp_path):
    read = pytest.importorskip("imageio_ffmpeg").read_frames
    film = torch.linspace(0, 1, 6)[:, None, None, None].expand(6, 3, 18, 33)
    saving.save_mp4(film, tmp_path / "film.mp4", 12.0)
    frames = read(tmp_path / "film.mp4")
    told = next(frames)
    assert (told["size"], told["fps"]) == ((32, 18), 12.0)
    shades = [float(np.frombuffer(frame, np.uint8).mean()) / 255 for frame in frames]
    assert shades == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], abs=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def check_sound(folder: Path, size: tuple[int, int]) -> None:
    assert size == (480, 2 * 96)  # the waves of two channels
    with wave.open(str(folder / "000-adapter-4.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (32, 2, 64)


def test_films_are_judged_frame_by_frame():
    pipe, adapter = folded("WanPipeline")
    seen = []

    def colours(pictures):
        seen.append(tuple(pictures.shape[1:]))
        return pictures.mean((2, 3)) + 0.5

    config = EvalConfig(scales=(4.0,), images=4, sampling_steps=2, eval_batch=4, bootstrap=0)
    results, pictures = evaluate(pipe, adapter, PROMPTS, Judge(images=colours), config, **FILM)
    assert set(seen) == {(3, 32, 32)}
    none, cfg, student = results.rows
    assert cfg.feature_distance is None and 0 < student.feature_distance < 1 and none.frechet.value > 0
    assert {row.variant: row.motion > 0 for row in results.rows} == {"none": True, "cfg": True, "adapter": True}
    assert pictures[0].wide and not adapter.attached


def test_waves_and_strips_show_what_is_there():
    time = torch.arange(4800) / 4800
    sound = torch.stack([torch.sin(2 * math.pi * 200 * time), torch.zeros(4800)])
    drawn = np.asarray(media.waves(sound))
    inked = (drawn != 255).any(-1)
    assert inked[:96].sum() > 40 * 480 and inked[96:].any(1).sum() == 1  # loud; and a flat line
    film = torch.linspace(0, 1, 20)[:, None, None, None].expand(20, 3, 4, 4)
    shown = np.asarray(media.strip(film))
    assert shown.shape == (4, 8 * 4, 3) and shown[0, 0, 0] == 0 and shown[0, -1, 0] == 255
    assert (np.diff(shown[0, ::4, 0].astype(int)) > 20).all()


def test_distances_of_sounds_latents_and_frames():
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(2, 1, 3000, generator=generator) / 4
    assert torch.equal(metrics.spectral_distance(sound, sound), torch.zeros(2))
    half = metrics.spectral_distance(sound, sound / 2)
    assert torch.allclose(half, torch.full((2,), 20 * math.log10(2)), atol=1e-3)
    assert metrics.spectral_distance(sound[..., :50], sound[..., :50] / 2).shape == (2,)
    target, start = torch.zeros(3, 4), torch.ones(3, 4)
    assert metrics.share_of_distance(start / 4, target, start) == pytest.approx(0.25)
    assert metrics.share_of_distance(target, target, target) is None
    film = torch.tensor([0.0, 0.5, 0.0])[None, :, None, None, None].expand(1, 3, 3, 2, 2)
    assert metrics.motion(film).tolist() == [0.5] and metrics.motion(film[:, :1]).tolist() == [0.0]


def test_rates_are_found_or_told_to_be_missing():
    pipe = build("AudioLDM2Pipeline").pipe
    assert media.sampling_rate(pipe) == pipe.vocoder.config.sampling_rate != pipe.feature_extractor.sampling_rate
    film = build("LTXPipeline").pipe
    assert media.frames_a_second(film, {}) == 25 and media.frames_a_second(film, {"frame_rate": 12}) == 12
    assert media.frames_a_second(pipe, {}) == 8
    with pytest.raises(ModelError, match="no part of WanPipeline tells the sampling rate"):
        media.sampling_rate(build("WanPipeline").pipe)
