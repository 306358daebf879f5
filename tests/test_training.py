"""Training: it learns, however a batch is computed, and it leaves the base model alone."""

from pathlib import Path

import pytest
import torch
from runs import DRAWN, PROMPTS, SHAPE, SOURCES, assert_unchanged, contents, interrupt, rows, run, settings, state_of
from safetensors.torch import load_file
from zoo import message_of, pipeline

from guidefold.config import AdapterConfig
from guidefold.distillation.run import distill, record, train
from guidefold.errors import InputError, ModelError, StoreError, TrainingError
from guidefold.keeping.hub import from_pretrained
from guidefold.trajectories.store import Store

OTHER = AdapterConfig(rank=3, width=8)


@pytest.mark.parametrize("source", SOURCES)
def test_it_learns_and_writes_what_it_learnt(pipe, store, source, tmp_path):
    adapter = run(pipe, tmp_path, store, source=source, steps=30, batch_size=8, learning_rate=5e-3, ema_decay=0.9)
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[0] == pytest.approx(1, abs=1e-4) and sum(losses[-5:]) / 5 < 0.9 * losses[0]
    assert [row["step"] for row in rows(tmp_path)] == list(range(30))
    best, last = from_pretrained(tmp_path / "best"), from_pretrained(tmp_path / "last")
    assert last.trained["steps"] == 30 and last.trained["source"] == source
    assert best.trained["recovered"] == max(row["validation"] for row in rows(tmp_path) if "validation" in row)
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), best.parameters(), strict=True))
    assert not adapter.attached and not adapter.training
    pipe(PROMPTS[0], num_inference_steps=2, output_type="latent")
    adapter.attach(pipe)


def close(a: Path, b: Path, tolerance: float) -> None:
    """Assert that two runs came to the same weights and losses but for rounding."""
    first, second = (load_file(folder / "last" / "model.safetensors") for folder in (a, b))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=tolerance, atol=tolerance)
    assert [row["loss"] for row in rows(a)] == pytest.approx([row["loss"] for row in rows(b)], rel=tolerance)


@pytest.mark.parametrize("changes", [{"accumulation": 2}, {"accumulation": 4}, {"gradient_checkpointing": True}])
def test_how_a_batch_is_computed_does_not_change_the_result(pipe, store, finished, changes, tmp_path):
    before = state_of(pipe)
    run(pipe, tmp_path, store, **changes)
    close(tmp_path, finished["recorded"], 2e-3)
    assert_unchanged(pipe, before)


def test_bf16_is_close(pipe, store, finished, tmp_path):
    adapter = run(pipe, tmp_path, store, mixed_precision="bf16")
    assert all(value.dtype == torch.float32 for value in adapter.parameters())
    # not the losses: where this random model's guidance is smallest, rounding of its own prediction exceeds it
    first, second = (load_file(folder / "last" / "model.safetensors") for folder in (tmp_path, finished["recorded"]))
    alike = [float(torch.cosine_similarity(first[name].flatten(), second[name].flatten(), dim=0)) for name in first]
    assert min(alike) > 0.2 and sorted(alike)[len(alike) // 2] > 0.99


def test_tensorboard_gets_an_event_file(pipe, store, tmp_path):
    run(pipe, tmp_path, store, tracker="tensorboard", steps=2)
    assert [path for path in tmp_path.rglob("*tfevents*") if path.stat().st_size > 100]


def test_a_tracker_that_is_not_installed_is_told(pipe, store, tmp_path, monkeypatch):
    monkeypatch.setattr("guidefold.distillation.run.find_spec", lambda name: None)
    told = message_of(InputError, lambda: run(pipe, tmp_path, store, tracker="wandb"))
    assert "tracker is wandb but it is not installed" in told


@pytest.mark.parametrize("failing", [False, True])
def test_the_base_model_is_left_as_it_was(pipe, store, failing, tmp_path, monkeypatch):
    pipe.unet.train().requires_grad_(True)
    pipe.unet.conv_in.eval().requires_grad_(False)
    before = state_of(pipe)
    if failing:
        interrupt(monkeypatch, "recorded", 1, ZeroDivisionError)
        with pytest.raises(ZeroDivisionError):
            run(pipe, tmp_path, store, gradient_checkpointing=True)
    else:
        run(pipe, tmp_path, store, gradient_checkpointing=True)
    assert_unchanged(pipe, before)


def test_another_runs_folder_is_refused(pipe, store, finished, tmp_path):
    before = contents(finished["recorded"])
    for changes, told in (
        ({"learning_rate": 1e-3}, "holds a run with learning_rate 0.002, not 0.001; give another output folder"),
        ({"source": "online"}, "not 'online'"),
    ):
        assert told in message_of(TrainingError, lambda c=changes: run(pipe, finished["recorded"], store, **c))
    other = record(pipe, PROMPTS[:4], tmp_path / "other", DRAWN).folder
    assert "holds a run with data" in message_of(TrainingError, lambda: run(pipe, finished["recorded"], other))
    assert contents(finished["recorded"]) == before
    (tmp_path / "letters.txt").write_text("dear")
    assert "is not empty and holds no run" in message_of(TrainingError, lambda: run(pipe, tmp_path, store))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json.partial").write_text("{")
    run(pipe, tmp_path / "new", store, steps=1)
    (tmp_path / "new" / "run.json").write_text("[1")
    assert "run.json is damaged" in message_of(TrainingError, lambda: run(pipe, tmp_path / "new", store, steps=1))


def test_what_does_not_belong_together_is_refused(pipe, store, tmp_path):
    output = tmp_path / "run"
    other = pipeline()
    with torch.no_grad():
        other.unet.conv_out.bias.add_(1)
    assert "was recorded from model" in message_of(StoreError, lambda: run(other, output, store))
    assert "there is no store" in message_of(StoreError, lambda: run(pipe, output, tmp_path / "none"))
    assert "but there is no store; record one first" in message_of(InputError, lambda: run(pipe, output, None))
    no_prompts = lambda: train(pipe, output, config=settings(source="online"))  # noqa: E731
    assert "but there are no conditions; give prompts" in message_of(InputError, no_prompts)
    assert "leave some to train on" in message_of(
        InputError, lambda: run(pipe, output, store, source="online", validation=6)
    )
    assert "holds out every recorded prompt" in message_of(InputError, lambda: run(pipe, output, store, validation=8))
    adapter = run(pipe, tmp_path / "good", store, steps=1).attach(pipe)
    assert "has another adapter attached" in message_of(ModelError, lambda: run(pipe, output, store))
    adapter.detach()
    assert not output.exists()


def test_it_starts_from_a_saved_adapter_in_its_shape(pipe, store, finished, tmp_path):
    saved = from_pretrained(finished["recorded"] / "best")
    config = settings(init=str(finished["recorded"] / "best"), steps=1, learning_rate=1e-12, ema_decay=0.0)
    adapter = train(pipe, tmp_path / "same", store=store, config=config)
    assert adapter.config == SHAPE == saved.config
    again = train(pipe, tmp_path / "again", store=store, config=settings(init=str(tmp_path / "same" / "best"), steps=1))
    steps = saved.trained["steps"]
    assert (again.trained["steps"], again.trained["steps_before"]) == (1, steps + 1)
    card = (tmp_path / "again" / "best" / "README.md").read_text()
    assert f"1 steps, after {steps + 1} of the adapter it started from" in card
    for value, start in zip(adapter.parameters(), saved.parameters(), strict=True):
        torch.testing.assert_close(value, start)
    told = message_of(ModelError, lambda: train(pipe, tmp_path / "other", store=store, adapter=OTHER, config=config))
    assert "cannot start from" in told and "give design film, rank 2, width 8" in told
    assert not (tmp_path / "other").exists()


def test_arguments_of_the_call_are_for_making_trajectories(pipe, store, finished, tmp_path):
    told = message_of(InputError, lambda: train(pipe, tmp_path / "one", store=store, config=settings(), height=16))
    assert "the argument height is for recording; a store has been recorded already" in told
    for source in SOURCES:
        made = dict(adapter=SHAPE, trajectory=DRAWN, config=settings(source=source))
        told = message_of(InputError, lambda made=made: distill(pipe, PROMPTS, tmp_path / "one", **made, hight=16))
        assert "hight is none of StableDiffusionPipeline.__call__" in told and not (tmp_path / "one").exists()
        larger = distill(pipe, PROMPTS, tmp_path / source, **made, height=24, width=16)
        assert larger.trained["recovered"] != from_pretrained(finished[source] / "best").trained["recovered"]
    assert Store.open(tmp_path / "recorded" / "store").read_shard(0)["call.sample"].shape[2:] == (12, 8)


def test_distill_is_record_and_train(pipe, store, finished, tmp_path):
    distill(pipe, PROMPTS, tmp_path, adapter=SHAPE, trajectory=DRAWN, config=settings())
    recorded = {path.name: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    assert recorded == {path.name: path.read_bytes() for path in store.iterdir()}
    wanted = contents(finished["recorded"])
    assert {name: value for name, value in contents(tmp_path).items() if not name.startswith("store")} == wanted
