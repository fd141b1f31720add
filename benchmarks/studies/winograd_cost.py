"""What `fasttrain.training.winograd` chooses by, beside measured times: a grid of convolutions, each pass both ways.

    python benchmarks/studies/winograd_cost.py --threads 1
    python benchmarks/studies/winograd_cost.py --threads 2 --contiguous

Adds the times of this number of threads and memory format to ``benchmarks/results/winograd_cost.json``, and prints for
each pass how much is gained where it is chosen and the least of these, what would be gained where it is not, and the
coefficients that would fit these times best.
"""

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from fasttrain.base.atomic import atomic_path
from fasttrain.base.memory import keep_freed_memory
from fasttrain.tools.bench.measure import machine_facts
from fasttrain.training.winograd import LEAST_WORK, ConvolutionShape

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from passes import milliseconds
from winograd import Layer, ways

RESULTS = Path(__file__).resolve().parents[1] / "results" / "winograd_cost.json"
SIDES = (7, 14, 16, 28, 32, 56)
IMAGES = (2, 8, 32, 128)
CHANNELS = ((3, 32), (8, 8), (16, 16), (16, 32), (24, 24), (24, 64), (32, 32), (48, 48), (64, 64), (64, 128))
CHANNELS += ((128, 64), (96, 96), (128, 128), (256, 256), (512, 512))
MOST_WORK = 4e10  # operations: larger ones take long, and behave alike
ROUNDS = 3
PASSES = ("forward", "input", "weight")


def main() -> None:
    """What the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contiguous", action="store_true", help="instead of channels-last")
    given = parser.parse_args()
    keep_freed_memory()  # as `fasttrain train` has it
    torch.set_num_threads(given.threads)
    memory_format = torch.contiguous_format if given.contiguous else torch.channels_last
    rows = [[layer.images, layer.inputs, layer.outputs, layer.side, *gains(layer, memory_format)] for layer in layers()]
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = machine_facts()
    results["columns"] = ["images", "inputs", "outputs", "side", *(f"gain_{name}" for name in PASSES)]
    name = f"{given.threads} threads, {'contiguous' if given.contiguous else 'channels-last'}"
    results.setdefault("gains", {})[name] = rows
    with atomic_path(RESULTS) as part:
        part.write_text(json.dumps(results) + "\n")
    for number, pass_name in enumerate(PASSES):
        print(f"{name}, {pass_name}: {verdict(rows, number)}")


def layers() -> list[Layer]:
    """The grid, without what is too little or too much work."""
    sides = itertools.product(SIDES, CHANNELS, IMAGES)
    grid = [Layer("grid", images, *channels, side) for side, channels, images in sides]
    return [layer for layer in grid if LEAST_WORK <= layer.work <= MOST_WORK]


def gains(layer: Layer, memory_format: torch.memory_format) -> list[float]:
    """How many times as fast Winograd's way is, by pass: the least times of some interleaved rounds."""
    found = []
    for own, direct in ways(layer, memory_format).values():
        times = [(milliseconds(direct), milliseconds(own)) for _ in range(ROUNDS)]
        theirs, ours = map(min, zip(*times, strict=True))
        found.append(round(theirs / ours, 3))
    return found


def shape_of(row: list[float]) -> ConvolutionShape:
    """That a row of the results is about."""
    return ConvolutionShape(*map(int, row[:4]), int(row[3]))


def verdict(rows: list[list[float]], number: int) -> str:
    """The choices of a pass against its times."""
    chosen, left = [], []
    for row in rows:
        (chosen if shape_of(row).gaining()[number] else left).append(row[4 + number])
    lost = [gain for gain in left if gain > 1]
    return (
        f"{len(chosen)} of {len(rows)} chosen, {statistics.geometric_mean(chosen):.2f} times as fast, the least "
        f"{min(chosen):.2f}; {len(lost)} of the others would be {statistics.geometric_mean([1.0, *lost]):.2f} times; "
        f"best fit {', '.join(f'{value:.2f}' for value in fit(rows, number))}"
    )


def fit(rows: list[list[float]], number: int) -> np.ndarray:
    """The coefficients of a `Cost` by least squares of relative errors, none below 0."""
    shaped = [(shape_of(row), row[4 + number]) for row in rows]
    terms = np.array([[s.padding, s.padding * (1 / s.inputs + 1 / s.outputs), 1 / s.tiles] for s, _ in shaped])
    gain = np.array([measured for _, measured in shaped])
    return nnls(terms * gain[:, None], np.ones(len(gain)))[0]


if __name__ == "__main__":
    main()
