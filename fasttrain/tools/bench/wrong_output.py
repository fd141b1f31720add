"""The error of a contestant that does not do what all are asked to do."""

from fasttrain.base.errors import FasttrainError


class WrongOutputError(FasttrainError):
    """What a contestant gives is not what was asked for."""
