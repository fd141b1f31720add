"""Facts about this process: its rank among others, and the CPU cores that it may use. No torch."""

import math
import os
import platform
import sys
from pathlib import Path

from fasttrain.base.errors import LaunchError

# What torchrun tells each process that it starts, besides the number of all of them.
_TOLD = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What others tell the processes that they start, which says nothing of how these could meet.
_FOREIGN_WORLDS = {"srun": "SLURM_STEP_NUM_TASKS", "mpirun": "OMPI_COMM_WORLD_SIZE", "mpiexec": "PMI_SIZE"}
LOWEST_PRIORITY = 19  # as ``nice`` counts
_HOW_TO_START = "torchrun --nproc-per-node N -m fasttrain.cli.app …"


def rank() -> int:
    """Rank of this process in the job (0 outside of torchrun)."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Rank of this process on its machine (0 outside of torchrun)."""
    return _number("LOCAL_RANK", 0)


def world_size() -> int:
    """Number of processes of the job (1 outside of torchrun)."""
    return _number("WORLD_SIZE", 1)


def restarts() -> int:
    """How often torchrun has started the job's processes again after a failure."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0)


def job_name() -> str | None:
    """What tells this torchrun job from others, the same after each restart; None outside of torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # it was not named; then it is on one machine alone, and its agent is the parent
        return f"{platform.node()}:{os.getppid()}"
    return name


def check_launch() -> None:
    """Refuse to be one of several processes that cannot find each other: each would do the whole work, or wait.

    Raises:
        LaunchError: they were started in another way than by torchrun, and not told how to meet.
    """
    if "WORLD_SIZE" not in os.environ:
        for starter, name in _FOREIGN_WORLDS.items():
            if (count := _number(name, 1)) > 1:
                raise LaunchError(
                    f"this is one of {count} processes of {starter}, and none knows of the others; let {starter} start "
                    f"one torchrun a machine: {_HOW_TO_START}"
                )
        return
    missing = [name for name in _TOLD if name not in os.environ]
    if world_size() > 1 and missing:
        raise LaunchError(
            f"WORLD_SIZE makes this one of {world_size()} processes, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; start them with: {_HOW_TO_START}"
        )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdigit():
        raise LaunchError(f"the environment variable {name} must be a whole number, not {text!r}")
    return int(text)


def is_main() -> bool:
    """True on the process that writes files and talks to the user."""
    return rank() == 0


def available_cores() -> int:
    """Whole cores this process may use: the smaller of its CPU affinity and its cgroup quota, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, math.ceil(quota)) if quota else cores)


def local_world_size() -> int:
    """Number of processes of the job on this machine (1 outside of torchrun)."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def default_threads() -> int:
    """Worker threads for one rank: the available cores divided by the ranks on this machine."""
    return max(1, available_cores() // local_world_size())


def threads_have_priorities() -> bool:
    """Whether a thread can have another priority than its process; POSIX knows only that of the process."""
    return sys.platform == "linux"


def be_nice(more: int) -> None:
    """Lower the priority of the thread that calls this by so many steps of ``nice``, on Linux."""
    if more and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + more)  # 0 is the calling thread


def available_memory(system: Path = Path("/")) -> int | None:
    """Bytes that could be used without swapping: the smaller of what the machine and the cgroup have left, counting
    the page cache as free; None if the system does not tell."""
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    group = _cgroup_memory(system / "sys/fs/cgroup")
    return machine if group is None else min(machine, group)


def _cgroup_memory(root: Path) -> int | None:
    """Bytes that a limit of cgroup v2 or v1 leaves, counting the page cache as free; None if there is no limit."""
    for limit, used, statistics, cache in (
        ("memory.max", "memory.current", "memory.stat", "file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "cache"),
    ):
        try:
            rest = int((root / limit).read_text()) - int((root / used).read_text())
            facts = dict(line.split() for line in (root / statistics).read_text().splitlines())
            return max(0, rest + int(facts.get(cache, 0)))
        except (OSError, ValueError):  # absent, or "max"
            continue
    return None


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """CPU quota in cores of cgroup v2 or v1, None when unlimited or unknown."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int((root / "cpu/cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu/cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else None
    except (OSError, ValueError):
        return None
