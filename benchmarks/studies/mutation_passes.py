"""One pass over a data set of mutants: how it is written, loaded and fenced. For `mutation_checks.py`."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

_BATCH = {"checked": 7, "again": 5}


@dataclass(frozen=True)
class Settings:
    """How a group is loaded."""

    size: int
    train: bool
    bicubic: bool
    dtype: str
    decode: str
    threads: int
    views: int
    kept: bool  # whole images are decoded, and stay in memory
    simd: str
    strict: bool  # with on_error="raise", too
    index: bool  # by the random-access index, where there is one

    @classmethod
    def of(cls, group: int, levels: list[str]) -> "Settings":
        generator = np.random.default_rng([group, 0x67726F75])
        pick = lambda choices: choices[int(generator.integers(len(choices)))]  # noqa: E731
        train = pick((False, True))
        return cls(
            size=pick((5, 16, 24, 33)),
            train=train,
            bicubic=pick((False, True)),
            dtype=pick(("float32", "float32", "float16", "bfloat16")),
            decode=pick(("exact",) * 5 + ("fast",)),
            threads=pick((1, 1, 2)),
            views=pick((1, 1, 3)) if train else 1,
            kept=pick((False, False, False, True)),
            simd=pick(levels),
            strict=group % 3 == 0,
            index=pick((False, True, True)),
        )


@dataclass
class Loaded:
    """What a pass over a data set gave: pixels (views, size, size, 3) and label by sample id, reasons of what was
    skipped."""

    pixels: dict[str, np.ndarray]
    labels: dict[str, int]
    skipped: dict[str, str]
    handed_over: int


@contextmanager
def fenced(dataset: Any, index: bool) -> Iterator[None]:
    """Forbid reading between the images of a `.beton` in memory, and with `index` their indices: a decoder that leaves
    its image's bytes is stopped."""
    from fasttrain.beton_build.format import REGION_ALIGNMENT, round_up
    from fasttrain.loading.open_dataset import BetonDataset

    if not isinstance(dataset, BetonDataset):
        yield
        return
    sources = dataset.stored(np.arange(dataset.num_samples))
    address = np.frombuffer(memoryview(sources.buffers[0]), np.uint8).ctypes.data
    sound = np.flatnonzero(sources.stored)
    spans = [(int(sources.offsets[i]), int(sources.offsets[i] + sources.lengths[i])) for i in sound]
    if index and sources.index is not None:  # they lie in the same bytes
        spans += [(int(at), int(at + length)) for _, at, length in sources.index[sound] if length]
    spans.sort()
    gaps, reached = [], spans[0][1] if spans else 0
    for start, stop in spans[1:]:
        if start > reached:
            gaps.append((reached, start))
        reached = max(reached, stop)
    gaps.append((reached, round_up(reached, REGION_ALIGNMENT)))
    asan = ctypes.CDLL(None)

    def apply(action: Any) -> None:
        for start, stop in gaps:
            action(ctypes.c_void_p(address + start), ctypes.c_size_t(stop - start))

    apply(asan.__asan_poison_memory_region)
    try:
        yield
    finally:
        apply(asan.__asan_unpoison_memory_region)


def load(path: Path, settings: Settings, backend: str, part: str, on_error: str = "skip") -> Loaded:
    """Pass over a data set once, in the manner of `part`."""
    import torch

    from fasttrain import Loader, eval_view, train_view

    view = (train_view if settings.train else eval_view)(
        settings.size,
        interpolation="bicubic" if settings.bicubic else "bilinear",
        mean=(0, 0, 0),
        std=(1, 1, 1),
        **({"vflip": 0.5} if settings.train else {"crop_pct": 1.0, "crop_mode": "squash"}),
    )
    options: dict[str, Any] = {
        "view": view, "order": "sequential", "seed": 1, "threads": settings.threads, "on_error": on_error,
        "dtype": getattr(torch, settings.dtype), "decode": settings.decode, "backend": backend,
        "views": settings.views, "memory_budget": "1TB" if settings.kept else None, "index": settings.index,
    }  # fmt: skip
    with Loader(path, 1, **options) as counted:
        count = counted.num_samples
    indices = np.arange(count)[:: -1 if part == "again" else 1].copy()
    loaded = Loaded({}, {}, {}, 0)
    with Loader(path, _BATCH[part], indices=indices, **options) as loader, fenced(loader.dataset, settings.index):
        for images, labels, ids, valid in loader:
            rows = ids[valid].tolist()
            names = loader.string_ids(rows)
            several = images.view(settings.views, *images.shape[-4:])[:, valid].movedim(1, 0)
            for name, row, label, views in zip(names, rows, labels[valid].tolist(), several, strict=True):
                key = f"{row}/{name}"
                loaded.pixels[key] = views.permute(0, 2, 3, 1).to(torch.float32).numpy().copy()
                loaded.labels[key] = label
        loaded.skipped.update(loader.skipped)
        loaded.handed_over = getattr(loader._backend, "handed_over", 0)
        everything = dict(zip(loader.string_ids(indices), indices.tolist(), strict=True))
        for name, row in everything.items():
            if f"{row}/{name}" not in loaded.pixels and not loaded.skipped.get(name):
                raise AssertionError(f"sample {name!r} neither came nor was skipped with a reason")
    return loaded


def agree(ours: np.ndarray, theirs: np.ndarray, settings: Settings, indexed: bool = False) -> bool:
    """Whether pixels are the same up to rounding; the two backends round at different places.

    With `indexed`, of images decoded by their index: chroma is resized by itself, and values are clipped later."""
    difference = 255 * np.abs(ours - theirs)
    if indexed:
        return bool(difference.mean() <= 24)
    # Pillow clips what a bicubic filter overshoots between its two passes, too.
    most, mean = (60.0, 4.0) if settings.bicubic else (2.5, 0.8)
    return bool(difference.max() <= most and difference.mean() <= mean)


def seed_of(name: str) -> int:
    """The seed in a sample's id: ``12``, ``3/12``, ``0003 12.jpg``."""
    return int(name.rsplit("/", 1)[-1].split()[-1].removesuffix(".jpg"))


def digest_of(*arrays: np.ndarray | None) -> str:
    """Changes with any bit of the pixels."""
    digest = xxhash.xxh3_64()
    for array in arrays:
        digest.update(b"none" if array is None else array.tobytes())
    return digest.hexdigest()


def write_beton(mutants: list[Any], folder: Path) -> Path:
    """A `.beton` of streams or pixels, checksums and all."""
    from fasttrain.beton_build.values import EncodedImage
    from fasttrain.beton_build.writer import BetonWriter

    path = folder / f"{mutants[0].kind} {mutants[0].seed}.beton"
    with BetonWriter(path, len(mutants)) as writer:
        for one in mutants:
            writer.add(str(one.seed), [EncodedImage(one.data, one.mode, one.width, one.height, one.index), 0])
    return path


def write_files(mutants: list[Any], folder: Path) -> Path:
    """A folder of files, each longer than the one before: then memory that is used again has none of it to spare."""
    root = folder / f"files {mutants[0].seed}"
    root.mkdir()
    for place, one in enumerate(sorted(mutants, key=lambda one: len(one.data))):
        (root / f"{place:04d} {one.seed}.jpg").write_bytes(one.data)
    return root
