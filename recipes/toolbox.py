"""What the runner is told about the commands; the command line itself knows it, and hands it in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Toolbox(Protocol):
    """The commands of this fasttrain."""

    def options(self, command: Sequence[str]) -> dict[str, "Option"] | None:
        """The options of a command by key (``--max-size`` is ``max_size``); None if there is no such command."""

    def usage_error(self, arguments: Sequence[str]) -> str | None:
        """What the command says of a command line that it would not take; None if it would."""

    def settings_error(self, command: Sequence[str], values: dict[str, Any]) -> str | None:
        """What a command that takes a file of settings says of `values`."""

    def class_names(self, path: Path) -> list[str] | None:
        """The classes that a data set, a table or a checkpoint is of; None if it does not say."""


class Option:
    """An option of a command.

    Attributes:
        flag: as ``--index``.
        negative: as ``--no-index``, None without one.
        is_flag: takes no value.
        repeated: is given once for each of several values.
    """

    def __init__(self, flag: str, negative: str | None = None, is_flag: bool = False, repeated: bool = False) -> None:
        self.flag, self.negative, self.is_flag, self.repeated = flag, negative, is_flag, repeated

    def words(self, value: Any) -> list[str]:
        """The words of a command line that give the option `value`; lists are joined with commas."""
        if self.is_flag:
            if value is True:
                return [self.flag]
            return [self.negative] if value is False and self.negative is not None else []
        values = value if self.repeated and isinstance(value, list) else [value]
        return [word for single in values for word in (self.flag, _as_word(single))]


def _as_word(value: Any) -> str:
    return ",".join(map(_as_word, value)) if isinstance(value, list | tuple) else str(value)
