"""What a build did, and what it could not do."""

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import ImageError, SourceError


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
    """What a build did.

    Attributes:
        out: the file (or folder of tar archives) that was written.
        samples, bytes: of `out`.
        indexed: how many of the samples have a random-access index.
        classes: number of class names.
        skipped: the images that were left out.
        skipped_list: table ``id,path,error`` of them; None when there are none.
        changes: how many images were kept, re-encoded, rotated, …
        ignored: files in folders that are no images.
        masks_without_image: masks in the tree that belong to no sample.
        val: {out, samples, bytes, indexed} of the validation part, if there is one.
    """

    out: Path
    samples: int = 0
    classes: int = 0
    bytes: int = 0
    indexed: int = 0
    skipped: list[ImageError] = field(default_factory=list)
    skipped_list: Path | None = None
    images_per_s: float = 0.0
    changes: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    masks_without_image: int = 0
    val: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The result of ``fasttrain build --json``."""
        return {
            "out": str(self.out),
            "samples": self.samples,
            "classes": self.classes,
            "bytes": self.bytes,
            "indexed": self.indexed,
            "val": self.val,
            "skipped": [{"id": error.sample_id, "path": error.path, "error": error.reason} for error in self.skipped],
            "skipped_list": None if self.skipped_list is None else str(self.skipped_list),
            "normalised": dict(sorted(self.changes.items())),
            "ignored_files": self.ignored,
            "masks_without_image": self.masks_without_image,
            "images_per_s": round(self.images_per_s, 1),
        }


def write_skipped(out: Path, skipped: list[ImageError]) -> Path:
    """Write the table of the images that were left out, ``OUT_skipped.csv``, beside `out`."""
    path = out.with_name(f"{out.stem}_skipped.csv")
    with atomic_open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "path", "error"])
        table.writerows([error.sample_id, error.path, error.reason] for error in skipped)
    return path
