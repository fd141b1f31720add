"""Passes of convolutions on a CPU, ours beside torch's (oneDNN's): what `winograd.py` and `depthwise.py` share."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from fasttrain.base.memory import keep_freed_memory
from fasttrain.base.process import available_cores
from fasttrain.tools.bench.measure import machine_facts

Way = Callable[[], Any]


class Layer(Protocol):
    """A convolution of a network that is trained in batches of `images`; its name is its `str`."""

    network: str
    images: int

    @property
    def work(self) -> float:
        """Operations of the direct way."""


SomeLayer = TypeVar("SomeLayer", bound=Layer)


def measure_layers(
    description: str,
    results: Path,
    layers: Sequence[SomeLayer],
    ways: Callable[[SomeLayer], Mapping[str, tuple[Way, Way]]],
) -> None:
    """Compare the passes of each layer by the options of the command line, print and write them.

    Args:
        ways: of each pass of a layer, ours and torch's.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--only", default="", help="layers whose names begin so, separated by commas")
    parser.add_argument("--out", type=Path, default=results)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as in training; without it most of the time is the kernel's, for zeroed pages
    entries = []
    for layer in layers:
        if not str(layer).startswith(tuple(given.only.split(","))):
            continue
        for what, (own, direct) in ways(layer).items():
            entry = compare(layer, what, own, direct, given.rounds)
            entries.append(entry)
            print(
                f"{entry['network']:>15} {entry['layer']:>11} {what:>9}: torch {entry['torch']['median_ms']:8.2f} ms "
                f"({entry['torch']['gflop_per_s']:5.0f} GFLOP/s), ours {entry['fasttrain']['median_ms']:8.2f} ms "
                f"({entry['fasttrain']['gflop_per_s']:5.0f}): {entry['speedup']:.2f} times as fast "
                f"({entry['speedup_min']:.2f} to {entry['speedup_max']:.2f}), difference {entry['difference']:.0e}",
                flush=True,
            )
    written = {"machine": machine_facts(), "threads": given.threads, "rounds": given.rounds, "results": entries}
    given.out.write_text(json.dumps(written, indent=2) + "\n")


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
