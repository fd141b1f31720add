"""The dense CRF on photos: seconds of the native lattice beside NumPy's, and how far both are from all pairs of pixels.

Writes ``benchmarks/results/dense_crf.json`` and prints a table.

python benchmarks/dense_crf.py PHOTOS [--count 8] [--side 448] [--rounds 5] [--out FILE]

Each photo is resized to `side` x `side` pixels, and its middle square is the mask. All of it runs on one thread. The
sum over all pairs is taken of the photo at `PAIRS_SIDE` pixels.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fasttrain.kernels.dense_crf import dense_crf, label_energies
from fasttrain.kernels.permutohedral import Backend, native_there
from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).parent / "results" / "dense_crf.json"
PAIRS_SIDE = 56
ITERATIONS, NEAR, ALIKE = 4, (3.0, 3.0), (50.0, 5.0, 10.0)  # as C2AM takes them


def energies_of(side: int) -> np.ndarray:
    """Of a mask that is the middle square."""
    mask = np.zeros((side, side), np.int64)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return label_energies(mask, 2, 0.7)


def inferred(pixels: np.ndarray, backend: Backend) -> np.ndarray:
    """(2, side, side) probabilities."""
    energies = energies_of(len(pixels))
    return dense_crf(energies, pixels, iterations=ITERATIONS, near=NEAR, alike=ALIKE, backend=backend)


def exact(pixels: np.ndarray) -> np.ndarray:
    """The same with every pair of pixels in float64."""
    side = len(pixels)
    places = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2).astype(np.float64)
    alike = np.concatenate([places / ALIKE[0], pixels.reshape(-1, 3) / ALIKE[1]], 1)
    total = np.zeros((side**2, side**2))
    for weight, features in ((NEAR[1], places / NEAR[0]), (ALIKE[2], alike)):
        squares = (features**2).sum(1)
        kernel = np.exp(features @ features.T - squares[:, None] / 2 - squares / 2)
        scales = 1 / np.sqrt(kernel.sum(1))
        total += weight * scales[:, None] * kernel * scales
    liking = -energies_of(side).reshape(2, -1).T.astype(np.float64)
    shares = np.exp(liking) / np.exp(liking).sum(1, keepdims=True)
    for _ in range(ITERATIONS):
        raised = np.exp(liking + total @ shares)
        shares = raised / raised.sum(1, keepdims=True)
    found: np.ndarray = shares.T.reshape(2, side, side)
    return found


def seconds(pixels: np.ndarray, backend: Backend, rounds: int) -> list[float]:
    """That each of so many calls takes."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        inferred(pixels, backend)
        found.append(time.perf_counter() - started)
    return found


def measure(path: Path, side: int, rounds: int, backends: list[Backend]) -> dict[str, Any]:
    """The figures of a photo."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    pixels, small = (np.asarray(photo.resize((wide, wide))) for wide in (side, PAIRS_SIDE))
    pairs = exact(small)
    result: dict[str, Any] = {"photo": path.name}
    for backend in backends:
        times = seconds(pixels, backend, rounds if backend == "native" else 1)
        near = inferred(small, backend)
        result[backend] = {
            "median_s": round(statistics.median(times), 3),
            "min_s": round(min(times), 3),
            "max_s": round(max(times), 3),
            "difference": round(float(np.abs(near - pairs).mean()), 4),
            "same_labels": round(float((near.argmax(0) == pairs.argmax(0)).mean()), 4),
        }
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    files = sorted(path for path in given.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = files[:: max(1, len(files) // given.count)][: given.count]
    backends: list[Backend] = ["native", "plain"] if native_there() else ["plain"]
    results = [measure(path, given.side, given.rounds, backends) for path in chosen]
    for row in results:
        for backend in backends:
            print(f"{row['photo'][:32]:32} {backend:7}", *(f"{name} {value}" for name, value in row[backend].items()))
    facts = {"machine": machine_facts(), "side": given.side, "rounds": given.rounds, "results": results}
    given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
