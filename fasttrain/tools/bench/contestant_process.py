"""The main function of a process that runs one contestant once."""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from fasttrain.tools.bench.memory import descendants


def print_figures(run: Callable[[], dict[str, Any]]) -> None:
    """Print what `run` gives as one line of JSON, or one line about its error, and end the process."""
    code = 1
    try:
        print(json.dumps(run()), flush=True)
        code = 0
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"{type(error).__name__}: {message}", file=sys.stderr, flush=True)
    finally:
        # Some peers hang when they are taken down half-way, and their workers would hold the pipes open.
        for process in descendants(os.getpid()):
            os.kill(process, signal.SIGKILL)
        os._exit(code)
