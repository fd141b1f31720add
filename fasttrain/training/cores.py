"""How loader and model share the cores of a training process."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fasttrain.base.process import available_cores, default_threads, local_world_size, threads_have_priorities
from fasttrain.loading.backend import WITH_OWN_THREADS

if TYPE_CHECKING:
    from fasttrain.training.settings import RunSettings

# Of the decoding threads, where the settings say nothing.
DEFAULT_NICE = 0


@dataclass(frozen=True)
class CoreSplit:
    """The threads of a process.

    By default both kinds are as many as there are cores for the process: what decides in training sleeps when there is
    nothing to do for it, and decoding that waits for cores does no harm while the queue is filled.

    Attributes:
        cores: that all processes of the machine may use.
        ranks: processes of the job on this machine.
        loading: decoding threads.
        nice: how much lower their priority is.
        model: torch's threads for an operation on the CPU.
    """

    cores: int
    ranks: int
    loading: int
    nice: int
    model: int

    @classmethod
    def of(cls, settings: "RunSettings") -> "CoreSplit":
        """What the settings say, and the defaults for the rest."""
        nice = settings.loader_nice
        if nice is None:
            can = threads_have_priorities() and settings.backend in WITH_OWN_THREADS and settings.resident is None
            nice = DEFAULT_NICE if can else 0
        return cls(
            cores=available_cores(),
            ranks=local_world_size(),
            loading=settings.threads or default_threads(),
            nice=nice,
            model=settings.model_threads or _torchs_own(),
        )

    def __str__(self) -> str:
        ranks = f" for {self.ranks} processes" if self.ranks > 1 else ""
        nice = f" at a priority lower by {self.nice}" if self.nice else ""
        return (
            f"{_counted(self.cores, 'core')}{ranks}: {_counted(self.loading, 'thread')} of the loader{nice}, "
            f"{self.model} of the model"
        )


def _torchs_own() -> int:
    """What torch has chosen: ``OMP_NUM_THREADS`` where set, else the cores, of which a quota may leave fewer."""
    threads = torch.get_num_threads()
    return threads if "OMP_NUM_THREADS" in os.environ else min(threads, default_threads())


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
