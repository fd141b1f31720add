"""A process that converts a folder once with this package: ``python -m … MODE IMAGES OUT WORKERS QUALITY``."""

import json
import sys
import time
from pathlib import Path

from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.tools.bench.conversion import remove


def main() -> None:
    """Convert, and print images/s."""
    mode, images, out, workers, quality = sys.argv[1:]
    remove(Path(out))
    options = BuildOptions.model_validate({"mode": mode, "workers": int(workers), "quality": int(quality)})
    started = time.monotonic()
    report = build(read_source(images), Path(out), options)  # ends with an fsync
    seconds = time.monotonic() - started
    print(json.dumps({"value": report.samples / seconds, "bytes": report.bytes}))


if __name__ == "__main__":
    main()
