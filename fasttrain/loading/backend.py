"""What a loader asks of a backend, and which one it takes."""

from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fasttrain.base.errors import ImageError, LoaderError
from fasttrain.base.process import LOWEST_PRIORITY, threads_have_priorities
from fasttrain.loading.dataset import ImageDataset
from fasttrain.loading.optional import install, why_absent
from fasttrain.loading.plan import BatchPlan
from fasttrain.loading.views import View


@dataclass(frozen=True)
class Circumstances:
    """What a backend is made for.

    Attributes:
        threads: decoding threads.
        view: of all batches; only its size may be another in a plan.
        stream: of the GPU that the images go to, None where they stay on the CPU.
        fast: decode faster and less exactly, where the backend knows a way.
        index: decode JPEGs by their random-access index where they have one and the backend knows that way.
        nice: how much lower than the process's the threads' priority is.
    """

    dataset: ImageDataset
    threads: int
    view: View
    stream: torch.cuda.Stream | None
    fast: bool = False
    index: bool = True
    nice: int = 0


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


def image_error_of(error: Exception, dataset: ImageDataset, row: int) -> ImageError:
    """`error`, that a filling gave for the sample of `row`, if it is the image's fault.

    Raises:
        LoaderError: it is not.
    """
    if isinstance(error, ImageError):
        return error
    if isinstance(error, CancelledError):
        raise LoaderError("the loader was closed while its batches were being read")
    name = dataset.string_ids(np.array([row]))[0]
    raise LoaderError(f"a loader thread failed on sample {name!r} of {dataset.name}: {error}") from error


class Backend(Protocol):
    """Persistent threads that carry plans out.

    Attributes:
        normalises: whether `submit` can be asked to normalise.
        augments: whether it carries the plan's program out; else `Augmenting` does.
        on_device: whether it fills batches on the GPU, on the stream that it was made for, and not on the host.
        uses_index: whether it decodes JPEGs by their random-access index.
    """

    normalises: bool
    augments: bool
    on_device: bool
    uses_index: bool

    def submit(
        self, plan: BatchPlan, wanted: np.ndarray, out: Tensor, normalisation: Normalisation | None = None
    ) -> Filling:
        """Start filling the entries of the `wanted` ((B,) bool) samples in `out`, (E, size, size, 3).

        `out` lies on the host, unless `on_device`. It is uint8 without a normalisation, and float32, float16 or
        bfloat16 with one. Other entries stay as they are.
        """

    def close(self, wait: bool = True) -> None:
        """End the threads; what has not begun is dropped."""


def _native(made_for: Circumstances) -> Backend:
    from fasttrain.loading.native import NativeBackend

    return NativeBackend(made_for.dataset, made_for.threads, made_for.fast, made_for.index, made_for.nice)


def _portable(made_for: Circumstances) -> Backend:
    from fasttrain.loading.portable import PortableBackend

    return PortableBackend(made_for.dataset, made_for.threads, made_for.nice)


def _dali(made_for: Circumstances) -> Backend:
    from fasttrain.loading.dali import DaliBackend

    return DaliBackend(made_for.dataset, made_for.threads, made_for.stream, made_for.fast)


def _ffcv(made_for: Circumstances) -> Backend:
    from fasttrain.loading.ffcv import FfcvBackend

    return FfcvBackend(made_for.dataset, made_for.threads, made_for.view)


Make = Callable[[Circumstances], Backend]
# ``auto`` takes the first that can run.
BACKENDS: dict[str, Make] = {"native": _native, "portable": _portable, "dali": _dali, "ffcv": _ffcv}
WITH_OWN_THREADS = ("auto", "native", "portable")  # that decode in threads which are ours


def available_backends() -> tuple[str, ...]:
    """The backends that can run here, the one that ``auto`` means first."""
    return tuple(name for name in BACKENDS if why_absent(name) is None)


def check_nice(nice: int, backend: str) -> None:
    """Refuse a lower priority of decoding threads where it cannot be had.

    Raises:
        LoaderError: it is no niceness, or the backend's threads or the system do not take one.
    """
    if not 0 <= nice <= LOWEST_PRIORITY:
        raise LoaderError(f"nice must be 0 to {LOWEST_PRIORITY}, not {nice}")
    if backend not in WITH_OWN_THREADS:
        raise LoaderError(f"the {backend} backend has threads that are not ours to make nice; leave nice out")
    if not threads_have_priorities():
        raise LoaderError("only Linux gives threads priorities of their own; leave nice out")


def choose_backend(name: str, decode: str) -> Make:
    """What makes the backend `name`; ``auto`` is ``native`` where that was built, else ``portable``.

    Raises:
        LoaderError: there is no such backend, or not here, or no such way to decode.
    """
    if name != "auto" and name not in BACKENDS:
        raise LoaderError(f"there is no loader backend {name!r}; choose one of auto, {', '.join(BACKENDS)}")
    if decode not in ("exact", "fast"):
        raise LoaderError(f"decode must be 'exact' or 'fast', not {decode!r}")
    if name == "auto":
        name = available_backends()[0]
    elif (reason := why_absent(name)) is not None:
        raise LoaderError(f"{reason}, or use backend='{'portable' if name == 'native' else 'auto'}'")

    def make(made_for: Circumstances) -> Backend:
        try:
            backend = BACKENDS[name](made_for)
        except ImportError as error:
            raise LoaderError(f"the {name} loader backend cannot be imported ({error}); {install(name)}") from error
        return backend if backend.augments else _augmented(backend, made_for)

    return make


def _augmented(backend: Backend, made_for: Circumstances) -> Backend:
    """`backend`, with the plans' programs carried out on what it makes."""
    from fasttrain.loading.augment.backend import Augmenting

    augment = getattr(made_for.view, "augment", None)
    if augment is None or not augment.active:
        return backend
    return Augmenting(backend, made_for.threads, made_for.stream)
