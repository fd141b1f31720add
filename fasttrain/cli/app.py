"""The ``fasttrain`` command: one module a group of commands, errors as one sentence, exit codes 0, 1 and 2."""

import os
import sys
import traceback
from contextlib import nullcontext
from types import ModuleType
from typing import NoReturn

import typer

from fasttrain.base.command_log import Ending, logged
from fasttrain.base.errors import FasttrainError
from fasttrain.base.process import is_main
from fasttrain.cli import (
    bench,
    corrupt,
    data,
    demo,
    doctor,
    ensemble,
    masks,
    models,
    objects,
    pretrain,
    pseudo,
    recipe,
    redistribute,
    runs,
    scores,
    segment,
    soup,
)

app = typer.Typer(
    name="fasttrain",
    help="Images to a trained, ensembled, re-distributed submission, as fast as the machine allows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_GROUPS: tuple[ModuleType, ...] = (
    *(data, corrupt, masks, models, pretrain, segment, objects, soup, scores, ensemble, redistribute, pseudo, recipe),
    *(runs, bench, doctor, demo),
)
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
    with logged(arguments) if _is_logged(arguments) else nullcontext(Ending()) as ending:
        _run(arguments, debug, ending)
    if ending.error is not None:
        who = f" (rank {os.environ['RANK']})" if "RANK" in os.environ and os.environ.get("WORLD_SIZE") != "1" else ""
        print(f"fasttrain{who}: {ending.error}", file=sys.stderr)
    sys.exit(ending.exit_code)


def _is_logged(arguments: list[str]) -> bool:
    """Whether a command line does something, and is not one of many of the same job."""
    return is_main() and bool(arguments) and "--help" not in arguments and arguments[:2] != ["runs", "log"]


def _run(arguments: list[str], debug: bool, ending: Ending) -> None:
    try:
        app(arguments, standalone_mode=True)
    except SystemExit as done:  # how typer ends, wrong usage included
        ending.exit_code = done.code if isinstance(done.code, int) else int(done.code is not None)
        return
    except (FasttrainError, OSError, KeyboardInterrupt) as error:
        ending.error, ending.exit_code = _told(error)
        if debug:
            traceback.print_exc()
    except BaseException:  # a defect of ours, or a signal's way out
        ending.exit_code = 1
        raise


def _told(error: BaseException) -> tuple[str, int]:
    """An error as one sentence, and the exit code."""
    if isinstance(error, FasttrainError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1
    return "interrupted", 130


if __name__ == "__main__":
    main()
