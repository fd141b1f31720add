"""Builds the native extension under AddressSanitizer and UndefinedBehaviorSanitizer, and starts Python with it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = "fasttrain.kernels._native"
COMPILE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
# So that a vector's unused capacity cannot be read either.
COMPILE += ["-D_GLIBCXX_SANITIZE_VECTOR", "-D_GLIBCXX_ASSERTIONS"]
LINK = ["-fsanitize=address,undefined", "-Wl,--exclude-libs,ALL"]

_BUILD = """
import json, sys
import setuptools
from distutils.core import run_setup
folder, compile, link = json.loads(sys.argv.pop())
distribution = run_setup("setup.py", ["-q", "build_ext"], stop_after="init")
[extension] = distribution.ext_modules
extension.optional = False
extension.extra_compile_args = [flag for flag in extension.extra_compile_args if not flag.startswith("-O")] + compile
extension.extra_link_args = link
command = distribution.get_command_obj("build_ext")
command.build_lib, command.build_temp, command.force = folder, folder + "/objects", True
command.ensure_finalized()
command.run()
"""


def build(folder: Path) -> Path:
    """Compile the sources of setup.py, with its flags but for the optimisation; the extension's path.

    With ``FASTTRAIN_STATIC_JPEG`` (see kernels/native/build_libjpeg_turbo.sh, which heeds CFLAGS) libjpeg-turbo can be
    under AddressSanitizer as well.
    """
    arguments = json.dumps([str(folder), COMPILE, LINK])
    command = [sys.executable, "-W", "ignore", "-c", _BUILD, arguments]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"the native extension cannot be built under sanitizers:\n{done.stdout}")
    [extension] = (folder / "fasttrain" / "kernels").glob("_native*.so")
    return extension


def environment(fill: int, plain_libjpeg: bool, home: Path) -> dict[str, str]:
    """For a process with the sanitized extension.

    Args:
        fill: the byte that every allocation is filled with.
        plain_libjpeg: without libjpeg-turbo's assembly, which no sanitizer sees into.
        home: folder for caches.
    """
    asan = {
        "detect_leaks": 0,  # Python's own are many; tests/loading/test_leaks.py looks for ours
        "allocator_may_return_null": 1,  # as without: std::bad_alloc, not an abort
        "malloc_fill_byte": fill,
        "max_malloc_fill_size": 1 << 26,
        "detect_stack_use_after_return": 1,
        "strict_string_checks": 1,
        "quarantine_size_mb": 64,
    }
    return {
        **os.environ,
        # The second for its __cxa_throw, which the first wraps.
        "LD_PRELOAD": " ".join(compiler_library(name) for name in ("libasan.so", "libstdc++.so.6")),
        "ASAN_OPTIONS": ":".join(f"{name}={value}" for name, value in asan.items()),
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "1",
        "XDG_CACHE_HOME": str(home),
        **({"JSIMD_FORCENONE": "1"} if plain_libjpeg else {}),
    }


def compiler_library(name: str) -> str:
    """Path of one of the compiler's own libraries."""
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={name}"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def compiler() -> str:
    """Name and version of the compiler."""
    command = [os.environ.get("CXX", "g++"), "--version"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]


def load(extension: Path) -> Any:
    """Take the extension for `fasttrain.kernels._native`. To be called before anything imports that."""
    specification = importlib.util.spec_from_file_location(MODULE, extension)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[MODULE] = module
    specification.loader.exec_module(module)
    return module
