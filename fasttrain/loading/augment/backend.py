"""Backends that know nothing of augmentation, and what is done to the bytes that they make."""

import numpy as np
import torch
from torch import Tensor

from fasttrain.kernels.augment import augment
from fasttrain.loading.backend import Backend, Filling, Normalisation
from fasttrain.loading.plan import BatchPlan


class Augmenting:
    """A backend that carries the plan's program out when a batch of another backend is filled.

    Args:
        threads: for batches on the host.
        stream: that batches on a GPU are made on.
    """

    normalises = False
    augments = True

    def __init__(self, inner: Backend, threads: int, stream: torch.cuda.Stream | None) -> None:
        self._inner, self._threads, self._stream = inner, threads, stream
        self.on_device, self.uses_index = inner.on_device, inner.uses_index

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> Filling:
        assert normalisation is None
        return _AugmentedFilling(self._inner.submit(plan, wanted, out), self, plan, out)

    def finish(self, plan: BatchPlan, out: Tensor) -> None:
        """Augment a filled batch in place."""
        assert plan.program is not None
        with torch.cuda.stream(self._stream if self.on_device else None):
            augment(out, plan.program, out=out, threads=self._threads)

    def close(self, wait: bool = True) -> None:
        self._inner.close(wait)


class _AugmentedFilling:
    def __init__(self, inner: Filling, backend: Augmenting, plan: BatchPlan, out: Tensor) -> None:
        self._inner, self._backend, self._plan, self._out = inner, backend, plan, out
        self._failures: dict[int, Exception] | None = None

    def result(self) -> dict[int, Exception]:
        if self._failures is None:
            self._failures = self._inner.result()
            self._backend.finish(self._plan, self._out)
        return self._failures

    def cancel(self) -> None:
        self._inner.cancel()
