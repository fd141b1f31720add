"""One error type per cause. A message is one sentence or two: what went wrong, where, and what to do about it."""

from pathlib import Path


class FasttrainError(Exception):
    """Base of every error that a user can cause or mend. The command line prints its message and exits.

    Attributes:
        exit_code: of the process.
    """

    exit_code = 1


class LaunchError(FasttrainError):
    """Several processes that should work together cannot, or one of them was lost."""


class SourceError(FasttrainError):
    """The images or lists that a data set is to be built from are missing, empty or contradictory."""


class ImageError(FasttrainError):
    """An image cannot be decoded.

    Attributes:
        sample_id: string id of the sample.
        path: where its bytes came from: an image file, or ``FILE.beton[row]``.
        reason: what the decoder said.
    """

    def __init__(self, sample_id: str, path: str | Path, reason: str) -> None:
        self.sample_id = sample_id
        self.path = str(path)
        self.reason = reason
        super().__init__(f"cannot decode image {sample_id!r} ({path}): {reason}")


class BetonError(FasttrainError):
    """A `.beton` file is damaged, incomplete, of another version, or not a `.beton` at all."""


class LoaderError(FasttrainError):
    """A loader was asked for something impossible, or one of its threads failed."""


class ConfigError(FasttrainError):
    """A setting is unknown, of the wrong type or out of its range."""


class WeightsError(FasttrainError):
    """A weight or checkpoint file is missing, unsafe, or does not fit the model."""


class TrainingError(FasttrainError):
    """Training cannot start or go on (data and model disagree, the loss is no longer finite, …)."""


class StoppedError(TrainingError):
    """Training was stopped by a signal, and its state saved.

    Attributes:
        exit_code: 128 plus the signal's number, as shells have it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ScoresError(FasttrainError):
    """Score tables are malformed or do not fit together."""
