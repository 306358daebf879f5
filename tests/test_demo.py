"""The bundled models do what the README says, command by command."""

import functools
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import guidefold
from guidefold import cli
from guidefold.config import AdapterConfig, EvalConfig, TrainConfig, TrajectoryConfig
from guidefold.demo import bundle
from guidefold.evaluation.evaluate import evaluate
from guidefold.models import load_adapter

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


SIZES = {"judge": 10e6, "teacher": 30e6, "dit": 11e6, "sd3": 11e6} | dict.fromkeys(
    ("adapter", "adapter-dit", "adapter-sd3"), 10e6
)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_commands():
    return [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]


def test_bundled_weights_are_small_and_no_pickle():
    files = [path for path in (bundle.HERE).rglob("*") if path.is_file()]
    sizes = {name: sum(f.stat().st_size for f in files if f.is_relative_to(bundle.HERE / name)) for name in SIZES}
    assert all(size < SIZES[name] for name, size in sizes.items()), sizes
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


@pytest.mark.parametrize("name", [bundle.UNET, bundle.SD3])
def test_held_out_prompts_are_known_names_in_styles_that_they_were_not_trained_in(name):
    trained, held_out = bundle.prompts(name), bundle.held_out_prompts(name)
    assert not set(trained) & set(held_out)
    assert {one.rpartition(", ")[0] for one in held_out} <= {one.rpartition(", ")[0] for one in trained}
    assert len(held_out) > 100


@pytest.mark.parametrize("command", [c for c in shell_commands() if c.startswith("guidefold")])
def test_readme_commands_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(bundle.prompts()[:40]), encoding="utf-8")
    fewer = ["--record-batch", "4", "--batch-size", "4"] if "--dry-run" in command else []  # for its trial
    assert cli.main([*shlex.split(command)[1:], *fewer]) == 0, capsys.readouterr().err


def test_readme_make_targets_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = [c for c in shell_commands() if c.startswith("make")]
    assert commands
    assert all(command.split()[1] in targets for command in commands)


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(bundle.prompts()[:8]), encoding="utf-8")
    small = functools.partial(
        guidefold.distill,
        adapter=AdapterConfig(rank=2, width=16),
        trajectory=TrajectoryConfig(trajectories=4, sampling_steps=2, keep=2, record_batch=4),
        config=TrainConfig(steps=2, batch_size=4, validation=1),
    )
    pipe = bundle.load_teacher()
    code = (
        blocks("python")[0]
        .replace("guidefold.distill(", "distill(")
        .replace("guidance_scale=7.5)", "guidance_scale=7.5, num_inference_steps=2)")
    )
    scope = {"pipe": pipe, "distill": small}
    exec(code, scope)
    assert scope["image"].size == (64, 64)


def test_bundled_adapter_takes_one_pass_and_recovers_guidance():
    pipe, adapter, judge = bundle.load_teacher(), load_adapter("bundled"), bundle.load_judge()
    config = EvalConfig(scales=(4.0,), images=8, sampling_steps=8, eval_batch=8, bootstrap=50)
    results, pictures = evaluate(pipe, adapter, bundle.held_out_prompts(), judge, config)
    assert [row.passes for row in results.rows] == [1, 2, 1]
    assert results.recovered_by_scale["4.0"] > 0.7
    assert results.of("adapter")[0].feature_distance < results.of("none")[0].feature_distance
    none, cfg, folded = results.rows
    assert cfg.clip_difference is None and none.clip_difference.value < folded.clip_difference.value
    assert folded.clip_difference.value == pytest.approx(folded.clip_score.value - cfg.clip_score.value, abs=1e-3)
    widths = [one.high - one.low for one in (folded.clip_difference, folded.clip_score)]
    assert 0 < widths[0] < widths[1]  # the same noise and prompts: what differs is the adapter alone
    assert pictures[0].images["adapter"].size == (64, 64)
    assert not adapter.attached


def test_demo_runs_and_resumes(tmp_path, capsys):
    assert cli.main(["demo", "--quick", "--output", str(tmp_path / "demo")]) == 0
    report = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "recovered" in capsys.readouterr().out
    assert "<svg" in report
    weights = (tmp_path / "demo" / "run" / "last" / "model.safetensors").read_bytes()
    assert cli.main(["demo", "--quick", "--output", str(tmp_path / "demo")]) == 0
    assert (tmp_path / "demo" / "run" / "last" / "model.safetensors").read_bytes() == weights


def test_the_class_conditional_teacher_goes_the_same_way(tmp_path, capsys):
    assert cli.main(["demo", "--teacher", "dit", "--quick", "--output", str(tmp_path / "demo")]) == 0
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    given = ["--model", "bundled-dit", "--adapter", "bundled-dit", "--sampling-steps", "2", "--guidance-scale", "3"]
    assert cli.main(["sample", "17", *given, "--output", str(tmp_path / "one")]) == 0
    assert (tmp_path / "one" / "000-adapter-3.png").exists()
    # another model's adapter does not fit, which is told before anything is sampled
    given = ["--model", "bundled-dit", "--adapter", "bundled-sd3", "--output", str(tmp_path / "two")]
    assert cli.main(["sample", "17", *given]) == 2
    assert capsys.readouterr().err.count("guidefold: error: ") == 1


def test_the_teacher_with_joint_attention_is_sampled_with_its_adapter_at_a_scale_that_it_knows(tmp_path, capsys):
    given = ["--model", "bundled-sd3", "--sampling-steps", "2", "--compare", "--output", str(tmp_path)]
    assert cli.main(["sample", "red apple, noto", *given]) == 0
    assert (tmp_path / "compare-3.8.png").exists() and "1 pass" in capsys.readouterr().out


def test_commands_from_record_to_report(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(bundle.prompts()[:12]), encoding="utf-8")
    tiny = ["--trajectories", "6", "--sampling-steps", "3", "--keep", "2", "--record-batch", "3", "--shard", "3"]
    store, run = tmp_path / "store", tmp_path / "run"
    assert cli.main(["record", "--conditions", str(prompts), "--output", str(store), *tiny]) == 0
    train = ["--steps", "3", "--batch-size", "4", "--validation", "2", "--rank", "2", "--width", "16"]
    assert cli.main(["train", "--store", str(store), "--output", str(run), *train]) == 0
    assert cli.main(["report", str(run)]) == 0
    judge = ["--scales", "3", "--images", "4", "--sampling-steps", "3", "--bootstrap", "0"]
    assert cli.main(["eval", "--adapter", str(run / "best"), "--output", str(tmp_path / "eval"), *judge]) == 0
    for target in (store, run, run / "best"):
        assert cli.main(["info", str(target)]) == 0
    assert "parameters" in capsys.readouterr().out
    dry = ["--dry-run", "--conditions", str(prompts), "--output", str(tmp_path / "none"), *tiny]
    assert cli.main(["record", *dry]) == 0
    assert not (tmp_path / "none").exists()


def test_arguments_of_the_call_reach_every_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(bundle.prompts()[:6]), encoding="utf-8")
    small = ["--call", "height=32", "--call", "width=48"]
    run = [
        "--source",
        "online",
        "--trajectories",
        "4",
        "--keep",
        "2",
        "--record-batch",
        "4",
        "--output",
        str(tmp_path / "run"),
    ]
    run += ["--steps", "1", "--batch-size", "2", "--validation", "1", "--rank", "2", "--conditions", str(prompts)]
    assert cli.main(["distill", *run, *small, "--sampling-steps", "2"]) == 0
    judge = ["--scales", "3", "--images", "4", "--sampling-steps", "2", "--bootstrap", "0"]
    assert cli.main(["eval", *judge, *small, "--output", str(tmp_path / "eval")]) == 0
    found = json.loads((tmp_path / "eval" / "evaluation.json").read_text())
    assert found["meta"]["call"] == {"height": 32, "width": 48}
    sampled = ["sample", "red apple, noto", "--sampling-steps", "2", "--guidance-scale", "3"]
    assert cli.main([*sampled, *small, "--output", str(tmp_path / "one")]) == 0
    with Image.open(tmp_path / "one" / "000-adapter-3.png") as image:
        assert image.size == (48, 32)
    assert cli.main(["observe", "red apple, noto", *small]) == 0
    for command in (sampled, ["eval", *judge], ["observe", "red apple, noto"]):
        assert cli.main([*command, "--call", "hight=32"]) == 2
        assert "hight is none of StableDiffusionPipeline.__call__" in capsys.readouterr().err
        for own in ("num_inference_steps", "guidance_scale"):
            assert cli.main([*command, "--call", f"{own}=9"]) == 2
            assert f"{own} is set by guidefold" in " ".join(capsys.readouterr().err.split())
    # a name of ours is no argument of the pipeline's; each command has others
    for command, others in (
        (sampled, ("seed=3", "batch=3")),
        (["eval", *judge], ("config=3", "seed=3")),
        (["observe", "red apple, noto"], ("pipe=3", "config=3")),
    ):
        for other in others:
            assert cli.main([*command, "--call", other]) == 2
            assert "is none of StableDiffusionPipeline.__call__" in " ".join(capsys.readouterr().err.split())


def test_sampling_is_the_same_again(tmp_path):
    def image():
        pipe = bundle.load_teacher()
        load_adapter("bundled").attach(pipe)
        return pipe(
            "red apple, noto",
            guidance_scale=4,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        ).images

    assert torch.equal(image(), image())
