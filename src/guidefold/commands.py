"""What each command of the command line does."""

from pathlib import Path

from guidefold.config import AdapterConfig, EvalConfig, TrainConfig, TrajectoryConfig


def demo(*, output: Path, minutes: float | None, quick: bool) -> None:
    """Train an adapter for the bundled teacher, judge it and write a report."""
    raise NotImplementedError


def record(
    *,
    model: str,
    conditions: Path,
    output: Path,
    trajectory: TrajectoryConfig,
    device: str | None,
    dtype: str,
    dry_run: bool,
) -> None:
    """Record guided trajectories of a teacher into a store."""
    raise NotImplementedError


def train(
    *,
    model: str,
    store: Path | None,
    conditions: Path | None,
    output: Path,
    adapter: AdapterConfig,
    train: TrainConfig,
    trajectory: TrajectoryConfig,
    device: str | None,
    dtype: str,
    dry_run: bool,
) -> None:
    """Train an adapter on a store, or on states made on the fly from conditions."""
    raise NotImplementedError


def distill(
    *,
    model: str,
    conditions: Path,
    output: Path,
    adapter: AdapterConfig,
    trajectory: TrajectoryConfig,
    train: TrainConfig,
    device: str | None,
    dtype: str,
    dry_run: bool,
) -> None:
    """Record and train in one go."""
    raise NotImplementedError


def sample(
    *,
    model: str,
    adapter: str | None,
    prompts: list[str],
    guidance_scale: list[float],
    output: Path,
    sampling_steps: int,
    seed: int,
    compare: bool,
    device: str | None,
    dtype: str,
) -> None:
    """Sample images in one pass a step."""
    raise NotImplementedError


def evaluate(
    *,
    model: str,
    adapter: str,
    conditions: Path | None,
    output: Path,
    evaluation: EvalConfig,
    device: str | None,
    dtype: str,
) -> None:
    """Compare teacher, bare model and student."""
    raise NotImplementedError


def report(*, run: Path, output: Path | None) -> None:
    """Write the report of a run."""
    raise NotImplementedError


def info(*, target: str | None) -> None:
    """Tell what an adapter, a store, a run or this installation is."""
    raise NotImplementedError
