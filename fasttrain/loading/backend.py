"""What a loader asks of a backend, and which one it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from fasttrain.base.errors import LoaderError
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.plan import BatchPlan

Decode = Literal["exact", "fast"]


@dataclass(frozen=True)
class Normalisation:
    """``pixel * scale + shift`` of each channel, the pixel being 0 to 255."""

    scale: tuple[float, float, float]
    shift: tuple[float, float, float]


class Filling(Protocol):
    """A batch that is being filled."""

    def result(self) -> dict[int, Exception]:
        """Wait for the batch; what went wrong, by sample: `ImageError` for an image that cannot be decoded, which
        leaves its entries undefined, `CancelledError` for one that was dropped, anything else for a fault of ours."""

    def cancel(self) -> None:
        """Drop what has not begun."""


class Backend(Protocol):
    """Persistent threads that carry plans out.

    Attributes:
        normalises: whether `submit` can be asked to normalise.
    """

    normalises: bool

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> Filling:
        """Start filling the entries of the `wanted` ((B,) bool) samples in `out`, (E, size, size, 3) on the host.

        `out` is uint8 without a normalisation, and float32, float16 or bfloat16 with one. Other entries stay as they
        are.
        """

    def close(self, wait: bool = True) -> None:
        """End the threads; what has not begun is dropped."""


def _portable(dataset: ImageDataset, threads: int, decode: Decode) -> Backend:
    from fasttrain.loading.portable import PortableBackend

    return PortableBackend(dataset, threads)


def _native(dataset: ImageDataset, threads: int, decode: Decode) -> Backend:
    from fasttrain.loading.native import NativeBackend

    return NativeBackend(dataset, threads, fast=decode == "fast")


BACKENDS: dict[str, Callable[[ImageDataset, int, Decode], Backend]] = {"native": _native, "portable": _portable}


def available_backends() -> tuple[str, ...]:
    """The backends that can run here, the one that ``auto`` means first."""
    from fasttrain.kernels.loading import loading_available

    return tuple(name for name in BACKENDS if name != "native" or loading_available())


def choose_backend(name: str, decode: str) -> Callable[[ImageDataset, int], Backend]:
    """What makes the backend `name`; ``auto`` is ``native`` where that was built, else ``portable``.

    Raises:
        LoaderError: there is no such backend, or not here, or no such way to decode.
    """
    if name != "auto" and name not in BACKENDS:
        raise LoaderError(f"there is no loader backend {name!r}; choose one of auto, {', '.join(BACKENDS)}")
    if decode not in ("exact", "fast"):
        raise LoaderError(f"decode must be 'exact' or 'fast', not {decode!r}")
    if name != "auto" and name not in available_backends():
        raise LoaderError(
            "the native loader backend was not built; install a C++ compiler and libjpeg's headers "
            "(apt-get install build-essential libjpeg-dev) and reinstall, or use backend='portable'"
        )
    make = BACKENDS[available_backends()[0] if name == "auto" else name]
    return lambda dataset, threads: make(dataset, threads, "fast" if decode == "fast" else "exact")
