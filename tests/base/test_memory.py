"""What is freed stays with the process, so that the kernel need not find and zero it anew."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = 64 * 2**20 // os.sysconf("SC_PAGE_SIZE")  # of the arrays below
SCRIPT = """
import resource, sys
import numpy as np
from fasttrain.base.memory import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
np.ones(8 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8 * 2**20)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told to")


def faults(mode: str, **environment: str) -> tuple[bool, int]:
    """Whether freed memory is said to be kept, and the page faults of asking for 64 MiB a second time."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    # Small pages, as the kernel gives out where it is not asked for others.
    command = [sys.executable, "-c", SCRIPT, mode]
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0", **own, **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    kept, count = map(int, done.stdout.split())
    return bool(kept), count


def test_large_blocks_are_found_again_with_their_pages() -> None:
    assert faults("leave")[1] >= PAGES / 2
    kept, count = faults("keep")
    assert kept and count < PAGES / 100


@pytest.mark.parametrize(
    "environment", [{"MALLOC_MMAP_MAX_": "1000"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_settings_of_the_environment_go_first(environment: dict[str, str]) -> None:
    kept, count = faults("keep", **environment)
    assert not kept and count >= PAGES / 2
