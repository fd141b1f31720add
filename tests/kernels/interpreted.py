"""Tests of Triton kernels run on a GPU, else in Triton's interpreter, in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch

# It has to be set before the kernels are imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
on_device = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETED, reason="no GPU here; see test_all_of_this_in_the_interpreter"
)
outside = pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")


def run_in_interpreter(file: str) -> None:
    """Run a file of tests in Triton's interpreter."""
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-p", "no:cacheprovider", file]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


def _patch_once_a_launch() -> None:
    """Have the interpreter prepare each function that a kernel calls once a launch; else it does so with every call."""
    from triton.runtime import interpreter

    patch, launch = getattr(interpreter, "_patch_lang", None), interpreter.GridExecutor.__call__
    prepared: set[object] = set()

    def patch_once(function: object) -> object:
        if function not in prepared:
            prepared.add(function)
            return patch(function)
        return None

    def launch_anew(self: object, *args: object, **kwargs: object) -> None:
        prepared.clear()  # what a launch has patched it restores at its end
        launch(self, *args, **kwargs)

    if patch is not None:
        interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, launch_anew


if INTERPRETED:
    _patch_once_a_launch()
