from collections.abc import Sequence
from typing import Any

import numpy as np
from typing_extensions import Buffer

jpeg_library: str

def check(data: Buffer, with_index: bool = False) -> dict[str, Any]: ...
def transcode(data: Buffer, quality: int) -> bytes | None: ...
def repack(data: Buffer) -> bytes | None: ...
def libjpeg_planes(data: Buffer, wants_samples: bool, eighths: int) -> list[np.ndarray]: ...

class IndexedReader:
    def __init__(self) -> None: ...
    def coefficients(self, data: Buffer, index: np.ndarray, units: tuple[int, int, int, int]) -> list[np.ndarray]: ...
    def planes(
        self, data: Buffer, index: np.ndarray, units: tuple[int, int, int, int], eighths: int
    ) -> list[np.ndarray]: ...
    def views(
        self,
        *,
        data: Buffer,
        index: np.ndarray,
        out: np.ndarray,
        dtype: str,
        scale: tuple[float, float, float],
        shift: tuple[float, float, float],
        filter: str,
        boxes: np.ndarray,
        resized: np.ndarray,
        windows: np.ndarray,
        hflip: list[bool],
        vflip: list[bool],
        fast: bool,
    ) -> None: ...

class Filling:
    def wait(self, seconds: float) -> bool: ...
    def cancel(self) -> None: ...
    def outcomes(self) -> tuple[np.ndarray, dict[int, str]]: ...

class BatchPool:
    def __init__(self, threads: int, nice: int) -> None: ...
    def close(self) -> None: ...
    def submit(
        self,
        *,
        out: np.ndarray,
        dtype: str,
        scale: tuple[float, float, float],
        shift: tuple[float, float, float],
        fast: bool,
        filter: str,
        stored: np.ndarray,
        buffers: list[Buffer],
        buffer: np.ndarray,
        offsets: np.ndarray,
        lengths: np.ndarray,
        paths: Sequence[bytes | None],
        sizes: np.ndarray,
        index: np.ndarray,
        boxes: np.ndarray,
        resized: np.ndarray,
        windows: np.ndarray,
        hflip: np.ndarray,
        vflip: np.ndarray,
        keep: np.ndarray | None,
        keep_at: np.ndarray,
        program: tuple[object, ...] | None,
        places: np.ndarray,
    ) -> Filling: ...

def usable_simd() -> list[str]: ...
def current_simd() -> str: ...
def force_simd(name: str) -> None: ...
def finish(
    *,
    pixels: np.ndarray,
    out: np.ndarray,
    dtype: str,
    scale: tuple[float, float, float],
    shift: tuple[float, float, float],
    operations: np.ndarray | None,
    factors: np.ndarray | None,
    threads: int,
) -> None: ...
def augment(
    *,
    pixels: np.ndarray,
    out: np.ndarray,
    dtype: str,
    scale: tuple[float, float, float],
    shift: tuple[float, float, float],
    program: tuple[object, ...],
    masks: np.ndarray | None,
    out_masks: np.ndarray | None,
    threads: int,
) -> None: ...
def augment_masks(masks: np.ndarray, program: tuple[object, ...], erases: bool, threads: int) -> None: ...
def mix_reversed(images: np.ndarray, shares: np.ndarray, threads: int) -> None: ...
def softmax_colsum(
    *, scores: np.ndarray, offsets: np.ndarray, temperature: float, threads: int
) -> tuple[np.ndarray, float, int]: ...
def assign(
    *,
    scores: np.ndarray,
    offsets: np.ndarray,
    temperature: float,
    threads: int,
    label: np.ndarray,
    probability: np.ndarray,
    margin: np.ndarray,
    log_normaliser: np.ndarray,
    top_classes: np.ndarray,
    top_values: np.ndarray,
) -> int: ...
def combine(
    *,
    tables: Sequence[np.ndarray],
    weights: Sequence[float],
    temperatures: Sequence[float],
    is_probs: Sequence[bool],
    rows: Sequence[np.ndarray | None],
    columns: Sequence[np.ndarray | None],
    space: str,
    out: np.ndarray,
    label: np.ndarray,
    top_classes: np.ndarray,
    top_values: np.ndarray,
    threads: int,
) -> None: ...
def powers_of_two(*, values: np.ndarray, shift: float, out: np.ndarray) -> float: ...
def read_floor(*, scores: np.ndarray, threads: int) -> int: ...
def exponential_floor(*, row: np.ndarray, repeats: int, threads: int) -> float: ...
def winograd_convolve(*, images: np.ndarray, weights: np.ndarray, out: np.ndarray, threads: int) -> None: ...
def winograd_weight_gradient(*, images: np.ndarray, gradients: np.ndarray, out: np.ndarray, threads: int) -> None: ...
def depthwise_gradients(
    *,
    images: np.ndarray,
    gradients: np.ndarray,
    weights: np.ndarray,
    by_images: np.ndarray | None,
    by_weights: np.ndarray | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    threads: int,
) -> None: ...

class Lattice:
    def __init__(self, features: np.ndarray) -> None: ...
    @property
    def vertices(self) -> int: ...
    def filter(self, *, values: np.ndarray, out: np.ndarray) -> None: ...
