"""Convolutions of 3 x 3 by Winograd's way beside torch's own (oneDNN's): each pass, interleaved in one process.

Writes ``benchmarks/results/winograd.json`` and prints a table.

python benchmarks/winograd.py [--rounds 7] [--threads N] [--share 1.0] [--only 64:64:56,512] [--out FILE]

Images, weights and results are float32 and channels-last; rates count the operations of the direct way for both.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fasttrain.base.memory import keep_freed_memory
from fasttrain.base.process import available_cores
from fasttrain.models.winograd import convolve, direct_gradients, gradient_by_images, gradient_by_weight
from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).parent / "results" / "winograd.json"


@dataclass(frozen=True)
class Layer:
    """A convolution of a network that is trained in batches of `images`."""

    network: str
    images: int
    inputs: int
    outputs: int
    side: int

    def __str__(self) -> str:
        return f"{self.inputs}:{self.outputs}:{self.side}"

    @property
    def work(self) -> float:
        """Operations of the direct way, those of the padding included."""
        return 18.0 * self.images * self.side**2 * self.inputs * self.outputs


LAYERS = [
    *(Layer("airbench_small", 500, *sides) for sides in ((24, 64, 31), (64, 64, 15), (64, 128, 15), (128, 128, 7))),
    *(Layer("airbench_small", 500, *sides) for sides in ((128, 256, 7), (256, 256, 3))),
    *(Layer("airbench94", 500, *sides) for sides in ((64, 256, 15), (256, 256, 7))),
    *(Layer("resnet18", 32, *sides) for sides in ((64, 64, 56), (128, 128, 28), (256, 256, 14), (512, 512, 7))),
]
Way = Callable[[], Any]


def ways(layer: Layer) -> dict[str, tuple[Way, Way]]:
    """Of each pass, ours and torch's."""
    torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape).contiguous(memory_format=torch.channels_last)

    images = random(layer.images, layer.inputs, layer.side, layer.side)
    gradient = random(layer.images, layer.outputs, layer.side, layer.side)
    weight = random(layer.outputs, layer.inputs, 3, 3)
    return {
        "forward": (lambda: convolve(images, weight), lambda: F.conv2d(images, weight, padding=1)),
        "by_input": (
            lambda: gradient_by_images(gradient, weight),
            lambda: direct_gradients(gradient, images, weight, (True, False, False))[0],
        ),
        "by_weight": (
            lambda: gradient_by_weight(gradient, images, weight),
            lambda: direct_gradients(gradient, images, weight, (False, True, False))[1],
        ),
    }


def milliseconds(work: Way) -> float:
    """That a call takes."""
    started = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - started)


def compare(layer: Layer, what: str, own: Way, direct: Way, rounds: int) -> dict[str, Any]:
    """The figures of a pass: times, the ratio of their medians and the least and largest within a round."""
    expected = direct()
    difference = (own() - expected).norm() / expected.norm()
    times = [(milliseconds(own), milliseconds(direct)) for _ in range(rounds)]
    result: dict[str, Any] = {"network": layer.network, "layer": str(layer), "images": layer.images, "pass": what}
    for name, found in zip(("fasttrain", "torch"), zip(*times, strict=True), strict=True):
        median = statistics.median(found)
        result[name] = {
            "median_ms": round(median, 2),
            "min_ms": round(min(found), 2),
            "max_ms": round(max(found), 2),
            "gflop_per_s": round(layer.work / median / 1e6, 1),
        }
    each = [theirs / ours for ours, theirs in times]
    result["speedup"] = round(result["torch"]["median_ms"] / result["fasttrain"]["median_ms"], 2)
    result |= {"speedup_min": round(min(each), 2), "speedup_max": round(max(each), 2)}
    return result | {"difference": float(f"{difference:.1e}")}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--share", type=float, default=1.0, help="of the images of each batch")
    parser.add_argument("--only", default="", help="layers whose names begin so")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as in training; without it most of the time is the kernel's, for zeroed pages
    results = []
    for layer in LAYERS:
        if not str(layer).startswith(tuple(given.only.split(","))):
            continue
        images = max(1, round(layer.images * given.share))
        part = Layer(layer.network, images, layer.inputs, layer.outputs, layer.side)
        for what, (own, direct) in ways(part).items():
            entry = compare(part, what, own, direct, given.rounds)
            results.append(entry)
            print(
                f"{entry['network']:>15} {entry['layer']:>11} {what:>9}: torch {entry['torch']['median_ms']:8.2f} ms "
                f"({entry['torch']['gflop_per_s']:5.0f} GFLOP/s), ours {entry['fasttrain']['median_ms']:8.2f} ms "
                f"({entry['fasttrain']['gflop_per_s']:5.0f}): {entry['speedup']:.2f} times as fast "
                f"({entry['speedup_min']:.2f} to {entry['speedup_max']:.2f}), difference {entry['difference']:.0e}",
                flush=True,
            )
    written = {"machine": machine_facts(), "threads": given.threads, "rounds": given.rounds, "results": results}
    given.out.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
