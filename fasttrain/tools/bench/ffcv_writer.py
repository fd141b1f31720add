"""A process that converts a folder once with FFCV's writer: ``python -m … MODE IMAGES OUT WORKERS QUALITY``.

``jpg`` and ``raw`` are its RGBImageField, ``bytes`` the files' own bytes in a BytesField. Every image is converted to
RGB before, because FFCV's writer hangs for ever on a grey one.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fasttrain.tools.bench.conversion import remove, sync_file


class Images:
    """FFCV's idea of a data set: (image, label) by index."""

    def __init__(self, folder: Path, as_bytes: bool) -> None:
        self.paths = sorted(folder.iterdir())
        self.as_bytes = as_bytes

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path = self.paths[index]
        if self.as_bytes:
            return np.fromfile(path, np.uint8), 0
        with Image.open(path) as image:
            return image.convert("RGB"), 0


def main() -> None:
    """Convert, and print images/s."""
    from ffcv.fields import BytesField, IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    mode, images, out, workers, quality = sys.argv[1:]
    remove(Path(out))
    samples = Images(Path(images), mode == "bytes")
    image_field = BytesField() if mode == "bytes" else RGBImageField(write_mode=mode, jpeg_quality=int(quality))
    started = time.monotonic()
    writer = DatasetWriter(out, {"image": image_field, "label": IntField()}, num_workers=int(workers))
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
        writer.from_indexed_dataset(samples)
    sync_file(Path(out))
    seconds = time.monotonic() - started
    print(json.dumps({"value": len(samples) / seconds, "bytes": Path(out).stat().st_size}))


if __name__ == "__main__":
    main()
