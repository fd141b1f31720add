"""Options and output that all commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fasttrain.base.console import emit_json
from fasttrain.base.process import is_main

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, everything else on stderr.")]
Table = Annotated[Path, typer.Argument(help="A score table (.arrow).")]
UseOption = Annotated[
    Literal["argmax", "assigned"] | None,
    typer.Option(
        help="Labels of the highest score, or those of a re-distribution [default: assigned where it is there]."
    ),
]


def finish(result: dict[str, Any], as_json: bool, *, hide: tuple[str, ...] = ()) -> None:
    """Print a command's result: one JSON object, or a ``key: value`` line each (without the keys in `hide`)."""
    if as_json:
        emit_json(result)
        return
    if not is_main():
        return
    for key, value in result.items():
        if key not in hide:
            print(f"{key}: {_readable(value)}")


def _readable(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "none" if not value else ", ".join(_readable(item) for item in value)
    return str(value)
