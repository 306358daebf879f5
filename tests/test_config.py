"""Settings check themselves and survive a file."""

import dataclasses
from pathlib import Path

import pytest

from guidefold.config import AdapterConfig, Config, EvalConfig, TrainConfig, TrajectoryConfig
from guidefold.errors import InputError

GROUPS = (AdapterConfig, TrajectoryConfig, TrainConfig, EvalConfig)
CHANGED = (
    AdapterConfig(design="offset", rank=3, target_modules=("attn1", 'quoted "name"')),
    TrajectoryConfig(trajectories=7, scale_max=12.5),
    TrainConfig(source="online", learning_rate=1e-5, gradient_checkpointing=True, tracker="tensorboard"),
    EvalConfig(scales=(1.5, 3.5)),
)


@pytest.mark.parametrize("config", [*CHANGED, *(group() for group in GROUPS)])
def test_toml_round_trip(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert type(config).from_toml(path) == config


@pytest.mark.parametrize("config", CHANGED)
def test_dict_round_trip(config: Config) -> None:
    assert type(config).from_dict(config.to_dict()) == config


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("rank = 4\nwidth = 32\n", encoding="utf-8")
    assert AdapterConfig.from_toml(path, rank=5) == AdapterConfig(rank=5, width=32)


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_has_help_and_cannot_be_changed(group: type[Config]) -> None:
    assert all(item.metadata["help"] for item in dataclasses.fields(group))
    name = dataclasses.fields(group)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(group(), name, 1)


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (AdapterConfig, {"design": "offset", "rank": 0}, "rank is 0"),
        (AdapterConfig, {"rank": 1.5}, "give a whole number"),
        (AdapterConfig, {"rank": "8"}, "give a whole number"),
        (AdapterConfig, {"rank": True}, "give a whole number"),
        (AdapterConfig, {"design": "adalora"}, "choose from film"),
        (AdapterConfig, {"ranks": 8}, "unknown setting 'ranks'"),
        (TrajectoryConfig, {"keep": 21}, "keep is 21 of 20"),
        (TrajectoryConfig, {"scale_min": 1.0}, "1 < scale_min"),
        (TrajectoryConfig, {"scale_min": 5.0, "scale_max": 4.0}, "scale_min <= scale_max"),
        (TrajectoryConfig, {"shard": 0}, "shard is 0"),
        (TrainConfig, {"learning_rate": float("nan")}, "finite"),
        (TrainConfig, {"learning_rate": -1.0}, "not negative"),
        (TrainConfig, {"gradient_checkpointing": 1}, "true or false"),
        (TrainConfig, {"batch_size": 10, "accumulation": 3}, "3 equal parts"),
        (TrainConfig, {"steps": 0}, "steps is 0"),
        (AdapterConfig, {"rank": float("inf")}, "rank is inf; give a finite number"),
        (AdapterConfig, {"rank": 10**400}, "give a finite number"),
        (AdapterConfig, {"target_modules": ()}, "give a list of at least one"),
        (AdapterConfig, {"target_modules": 3}, "target_modules is 3; give a list"),
        (AdapterConfig, {"target_modules": ["to_q", 3]}, "target_modules is 3; give a text"),
        (TrajectoryConfig, {"seed": 2**63}, "give a finite number"),
        (TrajectoryConfig, {"seed": -1}, "not negative"),
        (TrainConfig, {"learning_rate": 0}, "learning_rate is 0.0; give more than 0"),
        (TrainConfig, {"learning_rate": float("inf")}, "finite"),
        (TrainConfig, {"max_grad_norm": 0.0}, "give more than 0"),
        (TrainConfig, {"warmup": 1.1}, "warmup is 1.1; give at least 0 and at most 1"),
        (TrainConfig, {"ema_decay": 1.0}, "ema_decay is 1.0; give less than 1"),
        (TrainConfig, {"tracker": 3}, "tracker is 3; choose from tensorboard, wandb"),
        (TrainConfig, {"mixed_precision": "int8"}, "choose from no, fp16, bf16"),
        (TrainConfig, {"source": ["recorded"]}, "choose from recorded, online"),
        (EvalConfig, {"scales": [2.0, "4"]}, "give a number"),
        (EvalConfig, {"scales": 3.0}, "scales is 3.0; give a list"),
        (EvalConfig, {"scales": []}, "give a list of at least one"),
        (EvalConfig, {"scales": [2.0, 0.5]}, "scales is 0.5; give more than 1"),
        (EvalConfig, {"scales": [1.0, 2.0]}, "scales is 1.0; give more than 1"),
        (EvalConfig, {"scales": [4, 2, 4.0]}, "scales has 4 more than once; give each scale once"),
        (EvalConfig, {"scales": [float("nan")]}, "finite"),
        (EvalConfig, {"images": 3}, "images is 3; give at least 4"),
    ],
)
def test_bad_values_are_refused(group: type[Config], values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        group.from_dict(values)
    assert "\n" not in str(caught.value)


def test_values_become_the_type_they_are_declared_as() -> None:
    config = AdapterConfig(rank=8.0, target_modules="to_q")  # pyright: ignore[reportArgumentType]
    assert config == AdapterConfig(rank=8, target_modules=("to_q",))
    assert type(config.rank) is int
    assert type(TrainConfig(learning_rate=1).learning_rate) is float
    assert AdapterConfig.from_dict({"target_modules": ["a", "b"]}).target_modules == ("a", "b")


@pytest.mark.parametrize("text", ["rank = ", None])
def test_an_unreadable_file_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot read settings from .*settings\.toml"):
        AdapterConfig.from_toml(path)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: TrajectoryConfig(trajectories=10**12),
            "at least 1 and at most 10,000,000",
        ),
        (lambda: EvalConfig(images=10**12), "images is 1000000000000; give at least 4 and at most"),
        (lambda: TrajectoryConfig(negatives=("a \ud800",)), "negatives is 'a \\ud800', which holds half a character"),
    ],
)
def test_what_would_run_for_ever_or_cannot_be_written_is_refused(make, told):
    with pytest.raises(InputError) as caught:
        make()
    assert told in str(caught.value)
