"""The machine that stages run on, and what each of them takes of it."""

import os
import subprocess
from dataclasses import dataclass

from fasttrain.base.process import available_cores
from fasttrain.recipes.graph import Stage


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        gpus: as CUDA_VISIBLE_DEVICES names them.
        cores: that may be used.
        slurm: the process is part of a Slurm job, which can have more machines.
    """

    gpus: tuple[str, ...]
    cores: int
    slurm: bool = False

    @classmethod
    def here(cls, gpus: str | None = None) -> "Machine":
        """This machine; `gpus` names those to use (``0,1``, or "" for none)."""
        found = _visible() if gpus is None else tuple(name for name in gpus.split(",") if name.strip())
        return cls(found, available_cores(), "SLURM_JOB_ID" in os.environ)


def gpus_of(stage: Stage, machine: Machine) -> int:
    """GPUs that a stage takes on each machine."""
    if stage.head.gpus is not None:
        return stage.head.gpus
    return 1 if stage.kind.uses_gpu and machine.gpus and stage.body.get("device") != "cpu" else 0


def processes_of(stage: Stage, machine: Machine) -> int:
    """Processes of a stage on each machine."""
    if not stage.kind.torchrun:
        return 1
    return stage.head.nproc or max(1, gpus_of(stage, machine))


def _visible() -> tuple[str, ...]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name.strip() for name in named.split(",") if name.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return tuple(map(str, range(count)))
