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
    EvalConfig(scales=(1.0, 3.5)),
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
        (AdapterConfig, {"rank": 0}, "rank is 0"),
        (AdapterConfig, {"rank": 1.5}, "give a whole number"),
        (AdapterConfig, {"rank": "8"}, "give a whole number"),
        (AdapterConfig, {"rank": True}, "give a whole number"),
        (AdapterConfig, {"design": "lora"}, "choose from low_rank"),
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
        (EvalConfig, {"scales": [2.0, "4"]}, "give a number"),
    ],
)
def test_bad_values_are_refused(group: type[Config], values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        group.from_dict(values)


@pytest.mark.parametrize("text", ["rank = ", None])
def test_an_unreadable_file_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"cannot read settings from .*settings\.toml"):
        AdapterConfig.from_toml(path)
