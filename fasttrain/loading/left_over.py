"""What a backend leaves to the portable one."""

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.augment import augment
from fasttrain.loading.backend import Normalisation
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.plan import BatchPlan
from fasttrain.loading.portable import PortableBackend, PortableFilling


class LeftOver:
    """Threads for the samples that a backend does not take; they are made when the first one comes.

    Attributes:
        samples: so far.
    """

    def __init__(self, dataset: ImageDataset, threads: int, nice: int = 0) -> None:
        self.samples = 0
        self._dataset, self._threads, self._nice = dataset, threads, nice
        self._backend: PortableBackend | None = None

    def submit(self, plan: BatchPlan, samples: np.ndarray, pixels: Tensor) -> PortableFilling:
        """Start filling the entries of `samples` ((B,) bool) in uint8 `pixels`."""
        if self._backend is None:
            self._backend = PortableBackend(self._dataset, self._threads, self._nice)
        self.samples += int(samples.sum())
        return self._backend.submit(plan, samples, pixels)

    def close(self, wait: bool = True) -> None:
        if self._backend is not None:
            self._backend.close(wait)


class LeftOverFilling:
    """The part of one batch that is done the portable way, and brought into the batch's own format.

    Args:
        stream: of the GPU that `out` lies on, None where it lies on the host.
        augmented: the plan's program is carried out too.
    """

    def __init__(
        self,
        left: LeftOver,
        plan: BatchPlan,
        out: Tensor,
        normalisation: Normalisation | None,
        stream: torch.cuda.Stream | None = None,
        augmented: bool = False,
    ) -> None:
        self._program = plan.program if augmented else None
        self._left, self._plan, self._out, self._stream = left, plan, out, stream
        self._normalisation = normalisation
        self._parts: list[tuple[np.ndarray, Tensor, PortableFilling]] = []

    def add(self, samples: np.ndarray) -> PortableFilling:
        """Have `samples` ((B,) bool) done, in the background."""
        if not samples.any():
            return PortableFilling({})
        pixels = torch.empty(self._out.shape, dtype=torch.uint8)
        if self._plan.frame is not None:
            pixels[:] = torch.tensor(self._plan.frame.fill, dtype=torch.uint8)
        filling = self._left.submit(self._plan, samples, pixels)
        self._parts.append((samples, pixels, filling))
        return filling

    def forget_last(self) -> None:
        """Leave out what was added last."""
        self._parts.pop()

    def result(self) -> dict[int, Exception]:
        """Wait, and store what was made; what went wrong, by sample. A second call has nothing to do."""
        failures: dict[int, Exception] = {}
        for samples, pixels, filling in self._parts:
            failed = filling.result()
            good = samples.copy()
            good[list(failed)] = False
            self._store(np.tile(good, self._plan.views), pixels)
            failures |= failed
        self._parts = []
        return failures

    def cancel(self) -> None:
        for _, _, filling in self._parts:
            filling.cancel()

    def _store(self, entries: np.ndarray, pixels: Tensor) -> None:
        """Bring `entries` ((E,) bool) of uint8 `pixels` into the batch's own format."""
        with torch.cuda.stream(self._stream):  # which is nothing where there is none
            for position in np.flatnonzero(entries).tolist():
                values = pixels[position]
                if self._program is not None:
                    values = augment(values[None], self._program[position : position + 1])[0]
                if self._normalisation is not None:
                    scale, shift = torch.tensor(self._normalisation.scale), torch.tensor(self._normalisation.shift)
                    values = values.to(torch.float32).mul_(scale).add_(shift)
                self._out[position] = values.to(self._out.device)
