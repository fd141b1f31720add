"""Loads mutants through the public Loader and says what became of each. Runs in the process that `mutations.py` starts.

Each group of seeds has settings of its own (view, size, type, decoding, threads, SIMD level), drawn from its number. Its
mutants are loaded in one of two parts, in processes whose fresh memory holds different bytes:

- ``checked``: in order, with ``on_error="skip"``, beside the portable backend on the same bytes, ``verify`` and, for
  every third group, ``on_error="raise"``;
- ``again``: the other way round, in batches of another size, with other neighbours.

Pixels that depend on anything but the sample's own bytes (an earlier batch, another sample, memory that was never
written) differ between the two. The digests of both are compared by `mutations.py`.
"""

import argparse
import ctypes
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sanitized
import xxhash

GROUP = 50  # seeds that share settings and, if they are images, a `.beton` or a folder
PARTS = ("checked", "again")
_BATCH = {"checked": 7, "again": 5}


@dataclass
class Finding:
    """What became of a mutant.

    Attributes:
        result: ``right`` (all samples came), ``skipped`` (one was left out by its name), ``error`` (the file as a whole
            was refused).
        confirmed: whether the portable backend gave the same pixels. It cannot where it refuses what the native one
            takes (damage below the crop), and is not asked to with ``decode="fast"``.
        digest: of all pixels and masks.
        faults: what must not be.
    """

    seed: int
    kind: str
    changes: list[str]
    result: str = ""
    confirmed: bool = False
    digest: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """How a group is loaded."""

    size: int
    train: bool
    bicubic: bool
    dtype: str
    decode: str
    threads: int
    simd: str
    strict: bool  # with on_error="raise", too

    @classmethod
    def of(cls, group: int, levels: list[str]) -> "Settings":
        generator = np.random.default_rng([group, 0x67726F75])
        pick = lambda choices: choices[int(generator.integers(len(choices)))]  # noqa: E731
        return cls(
            size=pick((5, 16, 24, 33)),
            train=pick((False, True)),
            bicubic=pick((False, True)),
            dtype=pick(("float32", "float32", "float16", "bfloat16")),
            decode=pick(("exact",) * 5 + ("fast",)),
            threads=pick((1, 1, 2)),
            simd=pick(levels),
            strict=group % 3 == 0,
        )


@dataclass
class Loaded:
    """What a pass over a data set gave: pixels (size, size, 3) and label by sample id, reasons of what was skipped."""

    pixels: dict[str, np.ndarray]
    labels: dict[str, int]
    skipped: dict[str, str]
    handed_over: int


@contextmanager
def fenced(dataset: Any) -> Iterator[None]:
    """Forbid reading between the images of a `.beton` in memory: a decoder that leaves its image's bytes is stopped."""
    from fasttrain.beton_build.format import REGION_ALIGNMENT, round_up
    from fasttrain.loading.dataset import BetonDataset

    if not isinstance(dataset, BetonDataset):
        yield
        return
    sources = dataset.stored(np.arange(dataset.num_samples))
    address = np.frombuffer(sources.buffers[0], np.uint8).ctypes.data
    sound = np.flatnonzero(sources.stored)
    spans = sorted((int(sources.offsets[i]), int(sources.offsets[i] + sources.lengths[i])) for i in sound)
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
    }  # fmt: skip
    with Loader(path, 1, **options) as counted:
        count = counted.num_samples
    indices = np.arange(count)[:: -1 if part == "again" else 1].copy()
    loaded = Loaded({}, {}, {}, 0)
    with Loader(path, _BATCH[part], indices=indices, **options) as loader, fenced(loader.dataset):
        for images, labels, ids, valid in loader:
            rows = ids[valid].tolist()
            names = loader.string_ids(rows)
            for name, row, label, image in zip(names, rows, labels[valid].tolist(), images[valid], strict=True):
                key = f"{row}/{name}"
                loaded.pixels[key] = image.permute(1, 2, 0).to(torch.float32).numpy().copy()
                loaded.labels[key] = label
        loaded.skipped.update(loader.skipped)
        loaded.handed_over = getattr(loader._backend, "handed_over", 0)
        everything = dict(zip(loader.string_ids(indices), indices.tolist(), strict=True))
        for name, row in everything.items():
            if f"{row}/{name}" not in loaded.pixels and not loaded.skipped.get(name):
                raise AssertionError(f"sample {name!r} neither came nor was skipped with a reason")
    return loaded


def agree(ours: np.ndarray, theirs: np.ndarray, settings: Settings) -> bool:
    """Whether pixels are the same up to rounding; the two backends round at different places."""
    difference = 255 * np.abs(ours - theirs)
    # Pillow clips what a bicubic filter overshoots between its two passes, too.
    most, mean = (60.0, 4.0) if settings.bicubic else (2.5, 0.8)
    return bool(difference.max() <= most and difference.mean() <= mean)


# --- groups -----------------------------------------------------------------------------------------------------------


class Checker:
    """Checks groups of mutants in one part."""

    def __init__(self, part: str, native: Any, photos: list[bytes]) -> None:
        self.part, self.native, self.photos = part, native, photos
        self.handed_over: Counter[str] = Counter()

    def group(self, seeds: list[int], folder: Path) -> list[Finding]:
        """Findings of seeds of one group, in their order."""
        from fasttrain.tools.mutants import mutant

        settings = Settings.of(seeds[0] // GROUP, self.native.usable_simd())
        self.native.force_simd(settings.simd)
        mutants = [mutant(seed, photos=self.photos) for seed in seeds]
        findings = {m.seed: Finding(m.seed, m.kind, [*m.changes]) for m in mutants}
        for kind in ("jpeg", "pixels", "file"):
            chosen = [m for m in mutants if m.kind == kind]
            if chosen:
                self._images(chosen, findings, settings, folder)
        for one in mutants:
            if one.kind == "beton":
                self._beton(one, findings[one.seed], settings, folder)
        return [findings[seed] for seed in seeds]

    def _images(self, mutants: list[Any], findings: dict[int, Finding], settings: Settings, folder: Path) -> None:
        path = write_files(mutants, folder) if mutants[0].kind == "file" else write_beton(mutants, folder)
        loaded = load(path, settings, "native", self.part)
        self.handed_over[mutants[0].kind] += loaded.handed_over
        by_seed = {seed_of(key): pixels for key, pixels in loaded.pixels.items()}
        reasons = {seed_of(name): reason for name, reason in loaded.skipped.items()}
        for seed in (m.seed for m in mutants):
            finding = findings[seed]
            finding.result = "right" if seed in by_seed else "skipped"
            finding.digest = digest_of(by_seed.get(seed))
            if (seed in by_seed) == (seed in reasons):
                finding.faults.append("came and was skipped at once, or neither")
        if self.part == "checked":
            self._compare(path, mutants, by_seed, findings, settings)
            if settings.strict:
                self._raises(path, mutants, set(reasons), findings, settings)

    def _compare(
        self, path: Path, mutants: list[Any], ours: dict[int, Any], findings: dict[int, Finding], settings: Settings
    ) -> None:
        """Beside the portable backend, and `verify`."""
        from fasttrain.kernels.jpeg import check_jpeg

        theirs = {seed_of(key): pixels for key, pixels in load(path, settings, "portable", "checked").pixels.items()}
        wrong = bad_of(path) if path.suffix == ".beton" else None
        for one in mutants:
            finding = findings[one.seed]
            if one.seed in ours and one.seed in theirs and settings.decode == "exact":
                finding.confirmed = agree(ours[one.seed], theirs[one.seed], settings)
                if not finding.confirmed:
                    difference = 255 * np.abs(ours[one.seed] - theirs[one.seed])
                    finding.faults.append(
                        f"pixels differ from the portable ones by {difference.max():.1f}, {difference.mean():.2f} levels"
                    )
            try:
                sound = one.seed in theirs and (one.kind == "pixels" or bool(check_jpeg(one.data)))
            except ValueError as error:
                sound = False
                if not str(error):
                    finding.faults.append("the check gives no reason")
            if sound and one.seed not in ours:
                finding.faults.append("a sound image was refused")
            if wrong is not None and not sound and str(one.seed) not in wrong:
                finding.faults.append("verify finds no fault with it")

    def _raises(
        self, path: Path, mutants: list[Any], bad: set[int], findings: dict[int, Finding], settings: Settings
    ) -> None:
        """With ``on_error="raise"`` the first batch with a bad sample is an error that names one."""
        from fasttrain.base.errors import ImageError

        named = None
        try:
            load(path, settings, "native", "checked", "raise")
        except ImageError as error:
            named = seed_of(error.sample_id)
        if (named is None) != (not bad) or (named is not None and named not in bad):
            findings[mutants[0].seed].faults.append(f"on_error='raise' names {named}, of {len(bad)} that are bad")

    def _beton(self, one: Any, finding: Finding, settings: Settings, folder: Path) -> None:
        from fasttrain.base.errors import BetonError, ImageError, LoaderError

        path = folder / f"{one.seed}.beton"
        path.write_bytes(one.data)
        if self.part == "checked":
            self._verify(path, finding)
        try:
            loaded = load(path, settings, "native", self.part)
        except (BetonError, LoaderError, ImageError) as error:
            finding.result = "error"
            finding.digest = digest_of(None)
            if "a loader thread failed" in str(error) or path.name not in str(error):
                finding.faults.append(f"an error that names no file, or is none of the file's: {error}")
            return
        finally:
            path.unlink()
        self.handed_over["beton"] += loaded.handed_over
        finding.result = "skipped" if loaded.skipped else "right"
        finding.digest = digest_of(*(loaded.pixels[key] for key in sorted(loaded.pixels)))
        if self.part == "checked":
            path.write_bytes(one.data)
            self._compare_beton(path, one, loaded, finding, settings)
            path.unlink()

    def _verify(self, path: Path, finding: Finding) -> None:
        from fasttrain.base.errors import BetonError
        from fasttrain.beton_build.verify import verify

        try:
            for error in verify(path, 1).bad:
                if not error.sample_id or not error.reason:
                    finding.faults.append("verify names no sample, or no reason")
        except BetonError:
            return

    def _compare_beton(self, path: Path, one: Any, loaded: Loaded, finding: Finding, settings: Settings) -> None:
        theirs = load(path, settings, "portable", "checked")
        both = [key for key in loaded.pixels if key in theirs.pixels]
        if settings.decode == "exact":
            wrong = [key for key in both if not agree(loaded.pixels[key], theirs.pixels[key], settings)]
            finding.confirmed = len(both) == len(loaded.pixels) and not wrong
            finding.faults += [f"pixels of {key} differ from the portable ones" for key in wrong]
        if one.base != "ffcv" and not one.sealed:
            self._as_before(one, loaded, finding, settings, path.parent)

    def _as_before(self, one: Any, loaded: Loaded, finding: Finding, settings: Settings, folder: Path) -> None:
        """Checksums guard all but the images' own bytes: a sample whose bytes were left alone is the sample it was."""
        from fasttrain.beton_build.reader import BetonReader
        from fasttrain.tools.mutants.betons import sound

        path = folder / f"sound {one.base}.beton"
        if not path.exists():
            path.write_bytes(sound(one.base))
        before = load(path, settings, "native", "checked")
        with BetonReader(path) as reader:
            spans = {
                f"{row}/{reader.ids[row]}": slice(
                    int(reader.offsets[row]), int(reader.offsets[row] + reader.sizes[row])
                )
                for row in range(reader.num_samples)
            }
        for key, pixels in loaded.pixels.items():
            touched = key in spans and one.data[spans[key]] != sound(one.base)[spans[key]]
            same = key in before.pixels and np.array_equal(pixels, before.pixels[key])
            if key not in spans or loaded.labels[key] != before.labels[key] or not (same or touched):
                finding.faults.append(f"{key} came with other pixels, label or name than were written")


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
            writer.add(str(one.seed), [EncodedImage(one.data, one.mode, one.width, one.height), 0])
    return path


def write_files(mutants: list[Any], folder: Path) -> Path:
    """A folder of files, each longer than the one before: then memory that is used again has none of it to spare."""
    root = folder / f"files {mutants[0].seed}"
    root.mkdir()
    for place, one in enumerate(sorted(mutants, key=lambda one: len(one.data))):
        (root / f"{place:04d} {one.seed}.jpg").write_bytes(one.data)
    return root


def bad_of(path: Path) -> set[str] | None:
    """The sample ids that `verify` complains of; None where the file's records are such that it stops at once."""
    from fasttrain.base.errors import BetonError
    from fasttrain.beton_build.verify import verify

    try:
        return {error.sample_id for error in verify(path, 1).bad}
    except BetonError:
        return None


def main() -> None:
    """Print a JSON line for each group: its findings, and how many samples Pillow decoded for the native backend."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("extension", type=Path)
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    native = sanitized.load(arguments.extension)
    photos = [path.read_bytes() for path in sorted(arguments.photos.iterdir())] if arguments.photos else []
    checker = Checker(arguments.part, native, photos)
    seeds = json.load(sys.stdin)
    groups: dict[int, list[int]] = {}
    for seed in seeds:
        groups.setdefault(seed // GROUP, []).append(seed)
    with tempfile.TemporaryDirectory() as folder:
        for number, members in groups.items():
            inner = Path(folder) / str(number)
            inner.mkdir()
            findings = [finding.__dict__ for finding in checker.group(members, inner)]
            print(json.dumps({"findings": findings, "handed_over": checker.handed_over}), flush=True)
            checker.handed_over.clear()


if __name__ == "__main__":
    main()
