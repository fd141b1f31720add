"""The command line as a user calls it."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from fasttrain.cli.app import main


def fasttrain(*arguments: object, ok: bool = True) -> dict:
    """What a command prints as JSON; of one that is to fail, its exit code and its message.

    In this process, since each new one takes most of a second to import what it needs.
    """
    words, out, err = ["fasttrain", *map(str, arguments), *(("--json",) if ok else ())], io.StringIO(), io.StringIO()
    code: object = None
    with mock.patch.object(sys, "argv", words), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    assert (code == 0) is ok, err.getvalue()
    return json.loads(out.getvalue()) if ok else {"code": code, "error": err.getvalue().strip()}
