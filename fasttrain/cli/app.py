"""The ``fasttrain`` command: one module a group of commands, errors as one sentence, exit codes 0, 1 and 2."""

import os
import sys
import traceback
from types import ModuleType
from typing import NoReturn

import typer

from fasttrain.base.errors import FasttrainError
from fasttrain.cli import bench, data, demo, doctor, models, scores

app = typer.Typer(
    name="fasttrain",
    help="Images to a trained, ensembled, re-distributed submission, as fast as the machine allows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_GROUPS: tuple[ModuleType, ...] = (data, models, scores, bench, doctor, demo)
for _group in _GROUPS:
    _group.register(app)


@app.callback()
def _root(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error (works anywhere in the line)."),
) -> None:
    """Options of every command."""


def main() -> NoReturn:
    """Console entry point."""
    # The option is taken out here so that it works before and after the command's name.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments, standalone_mode=True)
    except FasttrainError as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except OSError as error:
        if debug:
            traceback.print_exc()
        _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    sys.exit(0)


def _fail(message: str, code: int = 1) -> NoReturn:
    who = f" (rank {os.environ['RANK']})" if "RANK" in os.environ and os.environ.get("WORLD_SIZE") != "1" else ""
    print(f"fasttrain{who}: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
