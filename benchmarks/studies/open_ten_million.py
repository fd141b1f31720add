"""Time and memory that opening a `.beton` of ten million samples takes: one of ours, and one as FFCV lays it out.

The files are written here with the format's structures, not sample by sample; their images are single black pixels in
a sparse file, so they take about 1.5 GB of disk instead of terabytes. What counts for opening is all there: metadata,
allocation table (FFCV's in the order of its workers, without our trailer), string ids, keys, sizes and checksums.

    python benchmarks/studies/open_ten_million.py FOLDER [--samples 10000000]

Each opening is timed in a fresh process, packages imported before, from a warm page cache: `BetonReader(path)`, then
the first and the last image. The layout of FFCV is opened twice: its sizes are looked up, and the next time cached.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import xxhash

from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.trailer import checksum, pack_trailer, trailer_size
from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).resolve().parents[1] / "results" / "open_ten_million.json"
PIXEL = bytes(3)
CHUNK = 4096  # samples that one of FFCV's workers writes at a time, in this imitation
ROUNDS = 5

OPEN = """
import json, resource, sys, time
from fasttrain.beton_build.reader import BetonReader
def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024
before, started = anonymous(), time.perf_counter()
reader = BetonReader(sys.argv[1])
opened = time.perf_counter() - started
assert reader.image(0).shape == reader.image(reader.num_samples - 1).shape == (1, 1, 3)
read = time.perf_counter() - started
print(json.dumps({"open_s": opened, "first_and_last_image_s": read, "anonymous_mib": anonymous() - before}))
"""


def head_of(samples: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Metadata records, allocation records in file order, and where the pages end."""
    record = fmt.metadata_dtype(fmt.IMAGE_AND_LABEL)
    start = fmt.round_up(fmt.metadata_offset(2) + samples * record.itemsize, fmt.DEFAULT_PAGE_SIZE)
    rows = np.arange(samples, dtype=np.uint64)
    pointers = np.uint64(start) + rows * np.uint64(fmt.REGION_ALIGNMENT)
    metadata = np.zeros(samples, record)
    metadata["f0"]["mode"], metadata["f0"]["width"], metadata["f0"]["height"] = fmt.MODE_RAW, 1, 1
    metadata["f0"]["data_ptr"] = pointers
    metadata["f1"] = rows % np.uint64(1000)
    alloc = np.zeros(samples, fmt.ALLOC)
    alloc["sample_id"], alloc["ptr"], alloc["size"] = rows, pointers, len(PIXEL)
    return metadata, alloc, fmt.round_up(start + samples * fmt.REGION_ALIGNMENT, fmt.DEFAULT_PAGE_SIZE)


def header_of(samples: int, table_at: int) -> bytes:
    """The file's first 24 bytes."""
    header = np.zeros(1, fmt.HEADER)
    header[0] = (fmt.VERSION, 2, fmt.DEFAULT_PAGE_SIZE, samples, table_at)
    return header.tobytes()


def write_ours(path: Path, samples: int) -> None:
    """A file as our writer ends it."""
    metadata, alloc, pages_end = head_of(samples)
    digits = np.arange(samples)[:, None] // 10 ** np.arange(9, -1, -1) % 10
    blob = (digits + ord("0")).astype(np.uint8).tobytes()
    keys = np.fromiter((xxhash.xxh3_64_intdigest(blob[i : i + 10]) for i in range(0, len(blob), 10)), "<u8", samples)
    info = {"format": "fasttrain.beton", "samples": samples, "regions": samples, "class_names": None, "complete": True}
    sections = {
        "json": json.dumps(info).encode(),
        "digests": bytes(16),
        "id_offsets": (np.arange(samples + 1, dtype="<u8") * 10).tobytes(),
        "id_blob": blob,
        "keys": keys.tobytes(),
        "image_sizes": np.full(samples, len(PIXEL), "<u8").tobytes(),
        "image_xxh3": np.full(samples, checksum(PIXEL), "<u8").tobytes(),
    }
    lengths = {name: len(data) for name, data in sections.items()}
    table_at = pages_end + trailer_size(lengths, fmt.DEFAULT_PAGE_SIZE)
    head = header_of(samples, table_at) + fmt.pack_fields(fmt.IMAGE_AND_LABEL) + metadata.tobytes()
    table = alloc.tobytes()
    sections["digests"] = np.array([checksum(head), checksum(table)], "<u8").tobytes()
    body, footer = pack_trailer(sections, pages_end, fmt.DEFAULT_PAGE_SIZE)
    with path.open("wb") as file:
        file.write(head)
        for offset, data in ((pages_end, body), (table_at - len(footer), footer), (table_at, table)):
            file.seek(offset)
            file.write(data)


def write_as_ffcv(path: Path, samples: int) -> None:
    """A file without trailer, its table in the order in which several workers would have written it."""
    metadata, alloc, pages_end = head_of(samples)
    chunks = np.random.default_rng(0).permutation(-(-samples // CHUNK))
    order = (chunks[:, None] * CHUNK + np.arange(CHUNK)).ravel()
    with path.open("wb") as file:
        file.write(header_of(samples, pages_end) + fmt.pack_fields(fmt.IMAGE_AND_LABEL) + metadata.tobytes())
        file.seek(pages_end)
        file.write(alloc[order[order < samples]].tobytes())


def opened(path: Path, cache: Path) -> dict[str, float]:
    """Open the file in a process of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", OPEN, str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    return dict(json.loads(done.stdout))


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure, and how many runs there were."""
    return {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]} | {"runs": len(runs)}


def main() -> None:
    """Write the files that are not there yet, and time their opening."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=10_000_000)
    arguments = parser.parse_args()
    samples, folder = arguments.samples, arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs, cache = (folder / f"{name}_{samples}" for name in ("ours", "ffcv", "cache"))
    for path, write in ((ours, write_ours), (theirs, write_as_ffcv)):
        if not path.exists():
            write(path.with_suffix(".writing"), samples)
            path.with_suffix(".writing").rename(path)
    for path in (ours, theirs):
        opened(path, folder / "nowhere")  # warms the page cache
    firsts = []
    for _ in range(ROUNDS):
        for file in cache.rglob("*.npy"):
            file.unlink()
        firsts.append(opened(theirs, cache))
    result = {
        "machine": machine_facts(),
        "samples": samples,
        "ours": medians([opened(ours, cache) for _ in range(ROUNDS)]),
        "ffcv_layout_first_time": medians(firsts),
        "ffcv_layout_then": medians([opened(theirs, cache) for _ in range(ROUNDS)]),
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
