"""What guidefold raises when a user's input, model or file is at fault: one line that says what to do."""


class GuidefoldError(Exception):
    """Base of every error that guidefold raises on purpose."""


class InputError(GuidefoldError, ValueError):
    """An argument, option or input file cannot be used."""


class ModelError(GuidefoldError):
    """A model, pipeline or adapter does not fit what is asked of it."""


class StoreError(GuidefoldError):
    """A store of trajectories is damaged, foreign or of another version."""


class TrainingError(GuidefoldError):
    """Training cannot go on."""


class SeveralDenoisersError(InputError):
    """Guidance runs several networks, and none was chosen; `names` are the pipeline's components."""

    def __init__(self, pipeline: str, names: tuple[str, ...]) -> None:
        super().__init__(f"{pipeline} guides several networks; choose denoiser from {', '.join(names)}")
        self.names = names


class RoomError(TrainingError):
    """A device has not enough memory for what training asks of it."""
