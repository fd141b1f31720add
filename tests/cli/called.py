"""The command line as a user calls it, in a process of its own."""

import json
import subprocess
import sys


def fasttrain(*arguments: object, ok: bool = True) -> dict:
    """What a command prints as JSON; of one that is to fail, its exit code and its message."""
    command = [sys.executable, "-m", "fasttrain.cli.app", *map(str, arguments), *(("--json",) if ok else ())]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode == 0) is ok, result.stderr
    return json.loads(result.stdout) if ok else {"code": result.returncode, "error": result.stderr.strip()}
