"""Fills batches of a loader natively: threads that decode, crop, resize, normalise and store without Python."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from typing_extensions import Buffer

from fasttrain.kernels.augment_program import Program, native_program

try:
    from fasttrain.kernels import _native
except ImportError:  # installed without a compiler or libjpeg's headers
    _native = None  # type: ignore[assignment]

PixelType = Literal["uint8", "float32", "float16", "bfloat16"]

# How a sample is stored.
OTHER, JPEG, RAW, JPEG_FILE = range(4)
# What became of a sample.
PENDING, DONE, NOT_HANDLED, FAILED = range(4)

_WAIT = 0.2  # seconds between looks for signals, Ctrl-C above all


def loading_available() -> bool:
    """Whether the native extension was built."""
    return _native is not None


@dataclass(frozen=True)
class Sources:
    """Where the samples of a batch lie.

    Attributes:
        stored: (B,) uint8: `JPEG` or `RAW` (RGB) in memory, `JPEG_FILE` for a file that is to be shown upright, `OTHER`
            for what is not to be touched.
        buffers: contiguous bytes-like objects; they must not change while the batch is filled.
        buffer: (B,) int64: number of the sample's buffer.
        offsets, lengths: (B,) int64 bytes in the buffer or file; length 0 of a file means all of it.
        paths: of files, else None.
        sizes: (B, 2) int64 width and height that the images must have.
        index: (B, 3) int64, where the random-access index of each `JPEG` lies (`fasttrain.kernels.indexed`): number of
            the buffer, offset and length in bytes, both multiples of 8; length 0 for one that has none. None where
            none has. With its index, a JPEG is decoded only where its views look.
    """

    stored: np.ndarray
    buffers: Sequence[Buffer]
    buffer: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    paths: Sequence[bytes | None]
    sizes: np.ndarray
    index: np.ndarray | None = None


def stored_elsewhere(count: int) -> Sources:
    """`Sources` of `count` samples, all of them `OTHER`, of 1 x 1 pixels."""
    numbers = np.zeros((3, count), np.int64)
    sizes = np.ones((count, 2), np.int64)
    return Sources(np.zeros(count, np.uint8), [], numbers[0], numbers[1], numbers[2], [None] * count, sizes)


def gather(count: int, parts: Sequence[tuple[np.ndarray, Sources]]) -> Sources:
    """`Sources` of `count` samples from those of parts of them, each with its positions ((n,) int64) among all."""
    whole, buffers = stored_elsewhere(count), list[Buffer]()
    paths: list[bytes | None] = list(whole.paths)
    index = np.zeros((count, 3), np.int64)
    for positions, sources in parts:
        whole.stored[positions], whole.sizes[positions] = sources.stored, sources.sizes
        whole.offsets[positions], whole.lengths[positions] = sources.offsets, sources.lengths
        whole.buffer[positions] = sources.buffer + len(buffers)
        if sources.index is not None:
            index[positions] = sources.index + np.array([len(buffers), 0, 0])
        buffers += sources.buffers
        for position, path in zip(positions.tolist(), sources.paths, strict=True):
            paths[position] = path
    return replace(whole, buffers=buffers, paths=paths, index=index if index.any() else None)


@dataclass(frozen=True)
class Geometry:
    """What is shown in each view: `boxes` of the source are resized, and of the result a window is stored.

    With V views of each sample there are E = V * B of them; entry ``v * B + b`` is view v of sample b.

    Attributes:
        boxes: (E, 4) int64 left, top, width, height.
        resized: (E, 2) int64 width, height.
        windows: (E, 2) int64 left, top.
        hflip, vflip: (E,) bool.
        filter: both are antialiased, with Pillow's windows and weights.
        places: (E, 4) int64 left, top, width, height of each window in its entry, whose other pixels stay as they are
            (with a program they get its fill colour); None for windows as large as the entries.
    """

    boxes: np.ndarray
    resized: np.ndarray
    windows: np.ndarray
    hflip: np.ndarray
    vflip: np.ndarray
    filter: Literal["bilinear", "bicubic"] | str
    places: np.ndarray | None = None


@dataclass(frozen=True)
class Kept:
    """Where the pixels of whole images are left besides, as `RAW` samples of later batches.

    Attributes:
        pixels: flat, writable uint8.
        offsets: (B,) int64, where the (height, width, 3) pixels of each sample go; -1 for nowhere. No two samples of
            the batches that are being filled may go to the same place.
    """

    pixels: np.ndarray
    offsets: np.ndarray


@dataclass(frozen=True)
class PixelFormat:
    """How pixels are stored: ``value * scale + shift`` of each channel, the value being 0 to 255, not rounded."""

    dtype: PixelType = "uint8"
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Filling:
    """A batch that is being filled. Forgetting it drops what has not begun."""

    def __init__(self, native: "_native.Filling") -> None:
        self._native = native

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the batch is finished (or cancelled) within `timeout` seconds; None waits for it."""
        if timeout is not None:
            return self._native.wait(timeout)
        while not self._native.wait(_WAIT):
            pass
        return True

    def cancel(self) -> None:
        """Drop what has not begun; when this returns, nothing is read or written any more."""
        self._native.cancel()

    def outcomes(self) -> tuple[np.ndarray, dict[int, str]]:
        """(B,) uint8 outcomes of a finished batch, and the reasons (as clauses) of the `FAILED` by position."""
        return self._native.outcomes()


class BatchPool:
    """Persistent threads that fill batches in the order they are submitted, several at a time.

    One more thread has the system read ahead what the waiting batches will need, so that files which are not in memory
    are fetched many at a time.

    Args:
        nice: how much lower than that of the thread which makes the pool the priority of the filling threads is, as of
            the command ``nice`` (0 to 19); without effect where threads have no priority of their own (all but Linux).

    Raises:
        ImportError: the native extension was not built.
    """

    def __init__(self, threads: int, nice: int = 0) -> None:
        if _native is None:
            raise ImportError("the native extension was not built")
        self._native = _native.BatchPool(threads, nice)

    def submit(
        self,
        sources: Sources,
        geometry: Geometry,
        out: np.ndarray,
        pixels: PixelFormat,
        fast: bool = False,
        kept: Kept | None = None,
        program: Program | None = None,
    ) -> Filling:
        """Start filling `out`, (E, height, width, 3) of the item size of ``pixels.dtype`` (bfloat16 as any 16 bits).

        Entries of samples that come to be anything but `DONE` may be left half-written.

        Args:
            fast: decode JPEGs that are far larger than their views at a half, quarter or eighth of their size, and
                chroma without interpolation.
            kept: where whole JPEGs are left, decoded exactly and without their index; `RAW` samples are not copied.
            program: what is done to the bytes of each of the E entries before they are normalised and stored.

        Raises:
            ValueError: the arrays do not fit together.
            RuntimeError: the pool is closed, or this is another process than the one it was made in.
        """
        return Filling(
            self._native.submit(
                out=out,
                dtype=pixels.dtype,
                scale=pixels.scale,
                shift=pixels.shift,
                fast=fast,
                filter=geometry.filter,
                stored=sources.stored,
                buffers=list(sources.buffers),
                buffer=sources.buffer,
                offsets=sources.offsets,
                lengths=sources.lengths,
                paths=list(sources.paths),
                sizes=sources.sizes,
                index=np.zeros((0, 3), np.int64) if sources.index is None else sources.index,
                boxes=geometry.boxes,
                resized=geometry.resized,
                windows=geometry.windows,
                hflip=geometry.hflip,
                vflip=geometry.vflip,
                keep=None if kept is None else kept.pixels,
                keep_at=np.zeros(0, np.int64) if kept is None else kept.offsets,
                program=None if program is None else native_program(program),
                places=np.zeros((0, 4), np.int64) if geometry.places is None else geometry.places,
            )
        )

    def close(self) -> None:
        """Cancel all batches and end the threads. A second call does nothing."""
        self._native.close()


def usable_simd() -> list[str]:
    """Instruction sets that this build and processor can run, weakest first: portable, avx2, avx512."""
    return _native.usable_simd()


def current_simd() -> str:
    """The instruction set in use."""
    return _native.current_simd()


def force_simd(name: str) -> None:
    """Use an instruction set from now on, in the whole process.

    Raises:
        ValueError: it cannot be used here.
    """
    _native.force_simd(name)
