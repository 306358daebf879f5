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
