"""Converts a list of samples to `.beton` files: a pool of threads decodes, one thread writes in the list's order."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from fasttrain.base.config import Settings
from fasttrain.base.console import progress, say
from fasttrain.base.errors import ImageError, SourceError
from fasttrain.base.process import default_threads
from fasttrain.beton_build.images import DEFAULT_QUALITY, Prepared, prepare
from fasttrain.beton_build.origins import Origin, read_origin, stored_bytes
from fasttrain.beton_build.pool import ordered_map
from fasttrain.beton_build.sources import SampleList
from fasttrain.beton_build.split import split_rows
from fasttrain.beton_build.writer import BetonWriter


class BuildOptions(Settings):
    """How to convert. The command line's help explains each."""

    mode: Literal["keep", "jpg", "raw"] = "keep"
    quality: int = Field(default=DEFAULT_QUALITY, ge=1, le=100)
    max_resolution: int | None = Field(default=None, ge=1)
    workers: int | None = Field(default=None, ge=1)
    on_error: Literal["fail", "skip"] = "fail"
    page_size: int | None = None
    seed: int = Field(default=0, ge=0)
    val_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    val_out: Path | None = None
    force: bool = False


class BrokenImagesError(SourceError):
    """Images could not be decoded, and the build was to fail on them.

    Attributes:
        bad: one ImageError each.
    """

    def __init__(self, bad: list[ImageError]) -> None:
        self.bad = bad
        listed = "".join(f"\n  {error.path}: {error.reason}" for error in bad)
        super().__init__(
            f"{len(bad)} images cannot be converted, so nothing was written (--on-error skip leaves them out):{listed}"
        )


@dataclass
class BuildReport:
    """What a build did."""

    out: Path
    samples: int = 0
    classes: int = 0
    bytes: int = 0
    skipped: list[ImageError] = field(default_factory=list)
    images_per_s: float = 0.0
    changes: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    val: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The result of ``fasttrain build --json``."""
        return {
            "out": str(self.out),
            "samples": self.samples,
            "classes": self.classes,
            "bytes": self.bytes,
            "val": self.val,
            "skipped": [{"id": error.sample_id, "path": error.path, "error": error.reason} for error in self.skipped],
            "normalised": dict(sorted(self.changes.items())),
            "ignored_files": self.ignored,
            "images_per_s": round(self.images_per_s, 1),
        }


def build(samples: SampleList, out: Path, options: BuildOptions | None = None) -> BuildReport:
    """Convert `samples` to `out`, and with a validation fraction to a second file (``OUT_val.beton`` by default).

    Files appear under their names only when all of them are complete.

    Raises:
        BrokenImagesError: images cannot be decoded and `on_error` is "fail"; all of them are listed.
        SourceError: the output may not be written there, or nothing is left to write.
    """
    options = options or BuildOptions()
    plan = _Plan.make(samples, Path(out), options)
    started = time.monotonic()
    report = BuildReport(Path(out), classes=len(samples.class_names), ignored=samples.ignored)
    with ExitStack() as stack:
        writers = [stack.enter_context(plan.writer(part)) for part in range(len(plan.outs))]
        _convert(samples, plan, writers, report)
        if report.skipped and options.on_error == "fail":
            raise BrokenImagesError(report.skipped)
        empty = [str(path) for path, writer in zip(plan.outs, writers, strict=True) if not len(writer)]
        if empty:
            raise SourceError(f"no readable image is left for {' and '.join(empty)}, so nothing was written")
    report.images_per_s = len(samples) / max(time.monotonic() - started, 1e-9)
    report.samples, report.bytes = len(writers[0]), plan.outs[0].stat().st_size
    if len(writers) > 1:
        report.val = {"out": str(plan.outs[1]), "samples": len(writers[1]), "bytes": plan.outs[1].stat().st_size}
    return report


@dataclass
class _Plan:
    """Which samples go into which file."""

    samples: SampleList
    options: BuildOptions
    outs: list[Path]
    part: np.ndarray  # (N,) index into `outs`

    @classmethod
    def make(cls, samples: SampleList, out: Path, options: BuildOptions) -> "_Plan":
        part = np.zeros(len(samples), np.int64)
        outs = [out]
        if options.val_fraction > 0:
            _, chosen = split_rows(samples.ids, samples.labels, options.val_fraction, options.seed)
            if not len(chosen):
                raise SourceError(
                    f"a fraction of {options.val_fraction:g} of {len(samples)} samples leaves none for validation"
                )
            part[chosen] = 1
            outs.append(options.val_out or default_val_out(out))
        elif options.val_out is not None:
            raise SourceError("a file for validation was named, but no fraction: give --val-fraction as well")
        _check_outs(outs, options.force)
        return cls(samples, options, outs, part)

    def writer(self, part: int) -> BetonWriter:
        rows = np.flatnonzero(self.part == part)
        options = self.options
        info = {
            "options": {
                "mode": options.mode,
                "quality": options.quality,
                "max_resolution": options.max_resolution,
                "on_error": options.on_error,
                "seed": options.seed,
                "val_fraction": options.val_fraction,
                "part": ("train", "val")[part] if len(self.outs) > 1 else "all",
            },
            "source_fingerprint": self.samples.fingerprint(),
        }
        return BetonWriter(
            self.outs[part],
            len(rows),
            class_names=self.samples.class_names or None,
            page_size=options.page_size,
            expected_bytes=_size_on_disk([self.samples.origins[row] for row in rows]),
            info=info,
        )


def default_val_out(out: Path) -> Path:
    """``photos.beton`` -> ``photos_val.beton``."""
    return out.with_name(f"{out.stem}_val{out.suffix}")


def _check_outs(outs: list[Path], force: bool) -> None:
    if len({path.absolute() for path in outs}) < len(outs):
        raise SourceError(f"training and validation part cannot both be written to {outs[0]}")
    for path in outs:
        if path.suffix != ".beton":
            raise SourceError(f"the last argument names the file to write and must end in .beton, not {path}")
        if path.is_dir():
            raise SourceError(f"{path} is a folder; name a file to write")
        if path.exists() and not force:
            raise SourceError(f"{path} already exists; give --force to replace it")
        ancestor = next(parent for parent in path.absolute().parents if parent.exists())
        if not ancestor.is_dir():
            raise SourceError(f"{path} cannot be written: {ancestor} is not a folder")


def _size_on_disk(origins: list[Origin]) -> int:
    """An estimate from up to 1,000 of the images."""
    some = origins[:: max(1, len(origins) // 1000)]
    return int(sum(map(stored_bytes, some)) / max(1, len(some)) * len(origins))


def _convert(samples: SampleList, plan: _Plan, writers: list[BetonWriter], report: BuildReport) -> None:
    """Decode in parallel, write in order; after a failure that ends the build, go on decoding to find the others."""
    writing = True
    with progress("build", len(samples)) as bar:
        for row, outcome in enumerate(_prepared(samples, plan.options)):
            bar.advance()
            if isinstance(outcome, ImageError):
                report.skipped.append(outcome)
                writing &= plan.options.on_error == "skip"
                say(f"{'skipped' if writing else 'broken'}: {outcome.path}: {outcome.reason}")
                continue
            report.changes.update(outcome.changes or ["kept"])
            if writing:
                writers[plan.part[row]].add(samples.ids[row], [outcome.image, int(samples.labels[row])])


def _prepared(samples: SampleList, options: BuildOptions) -> Iterator[Prepared | ImageError]:
    """The prepared images in the order of the list."""
    items = zip(samples.ids, samples.origins, strict=True)
    return ordered_map(lambda item: _prepare_one(*item, options), items, options.workers or default_threads(), "build")


def _prepare_one(sample_id: str, origin: Origin, options: BuildOptions) -> Prepared | ImageError:
    try:
        return prepare(read_origin(origin), options.mode, options.quality, options.max_resolution)
    except ValueError as error:
        return ImageError(sample_id, str(origin), str(error))
    except OSError as error:
        return ImageError(sample_id, str(origin), error.strerror or str(error))
