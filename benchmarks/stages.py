"""Where the loader's time goes: each stage on one thread, what it is held against, and what they add up to.

python benchmarks/stages.py PHOTOS [--rounds 7] [--limit 500]

The work is RandomResizedCrop(224, 0.08–1) with a flip, stored as normalised float32; boxes and order are those of the
Loader's first epoch. The native stages are timed by ``native/stages.cpp``, compiled here against the kernels' sources,
in time that the thread worked; handing batches over is timed on images of one pixel. In every round each of them runs
once, as does the Loader itself on the same photos, so that what the stages leave unexplained is seen.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from python_stages import BATCH, hand_over_us, loader_pass, write_pixels, write_plan

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError, FasttrainError
from fasttrain.base.process import available_cores
from fasttrain.kernels.loading import loading_available, usable_simd
from fasttrain.tools.bench.loader_data import choose_samples, warm, write_beton
from fasttrain.tools.bench.measure import machine_facts

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parent / "kernels" / "native"
RESULTS = HERE / "results" / "loader_stages.json"
SIZE = 224
ANY = "-"  # in place of an instruction set, where it makes no difference
FLAGS = ("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only")  # as in setup.py
PROGRAMS = {"stages", "count", "fuzz_indexed"}  # of native/
STORED = ("float32", "float32_normalised", "float16_normalised", "bfloat16_normalised")

Rounds = dict[tuple[str, str], list[float]]  # by name and instruction set: a value a round
Value = Callable[[Rounds, str, int], float]  # of an instruction set and a round


@dataclass(frozen=True)
class Stage:
    """A part of the loader's work.

    Attributes:
        time: µs an image, or a batch.
        floors: by name, what it is held against: less work of the same kind, or the same done by others.
        per_simd: whether it depends on the instruction set.
    """

    name: str
    time: Value
    floors: dict[str, Value]
    per_simd: bool = False
    unit: str = "us/image"


def figure(name: str) -> Value:
    """A figure as it was measured."""
    return lambda rounds, simd, turn: rounds[(name, simd) if (name, simd) in rounds else (name, ANY)][turn]


def difference(more: str, less: str) -> Value:
    """What one takes beyond the other."""
    one, other = figure(more), figure(less)
    return lambda rounds, simd, turn: one(rounds, simd, turn) - other(rounds, simd, turn)


def total(*names: str) -> Value:
    """What several take together."""
    parts = [figure(name) for name in names]
    return lambda rounds, simd, turn: sum(part(rounds, simd, turn) for part in parts)


def batch_share(name: str) -> Value:
    """An image's share of what a batch takes."""
    whole = figure(name)
    return lambda rounds, simd, turn: whole(rounds, simd, turn) / BATCH


STAGES = (
    Stage("read, page not mapped yet", figure("read_us"), {"memcpy of the bytes": figure("copy_us")}),
    Stage("read, page mapped", figure("read_again_us"), {"memcpy of the bytes": figure("copy_us")}),
    Stage(
        "decode the crop's rows",
        figure("decode_us"),
        {
            "libjpeg-turbo, entropy code of the whole image": figure("entropy_us"),
            "the same down to the crop's last row, by share of height": figure("entropy_to_crop_us"),
            "our own check of the entropy code of the whole image": figure("entropy_checked_us"),
            "libjpeg-turbo, the whole image to RGB": figure("full_decode_us"),
        },
    ),
    Stage(
        "resample to uint8",
        figure("resample_uint8_us"),
        {"multiply-adds at the peak rate": figure("arithmetic_us"), "memory at copy speed": figure("traffic_us")},
        per_simd=True,
    ),
    *(
        Stage(
            f"store as {name.replace('_', ', ')}, beyond uint8",
            difference(f"resample_{name}_us", "resample_uint8_us"),
            {"memset of as many bytes more": figure(f"stream_{name}_us")},
            per_simd=True,
        )
        for name in STORED
    ),
    *(
        Stage(f"hand over: {part.replace('_', ' ')}", figure(f"hand_over_{part}"), {}, unit="us/batch")
        for part in ("planning", "submit", "result", "device_stage")
    ),
    Stage(
        "hand over: all, overlapped",
        figure("hand_over_loader"),
        {"to a thread and back through queue.Queue": figure("hand_over_queue")},
        unit="us/batch",
    ),
    Stage(
        "hand over: all, overlapped",
        batch_share("hand_over_loader"),
        {"to a thread and back through queue.Queue": batch_share("hand_over_queue")},
    ),
    Stage(
        "indexed: header and tables",
        figure("indexed_open_us"),
        {"libjpeg-turbo, setting up and reading the header": figure("header_us")},
    ),
    Stage("indexed: weights", figure("indexed_plan_us"), {}),
    Stage(
        "indexed: entropy code under the crop",
        figure("indexed_entropy_us"),
        {
            "memory at copy speed": figure("indexed_entropy_traffic_us"),
            "libjpeg-turbo, entropy code of the whole image": figure("entropy_us"),
        },
        per_simd=True,
    ),
    Stage(
        "indexed: inverse DCT",
        difference("indexed_planes_us", "indexed_entropy_us"),
        {"memory at copy speed": figure("indexed_idct_traffic_us")},
        per_simd=True,
    ),
    *(
        Stage(
            f"indexed: resample, mix, store as {name.replace('_', ', ')}",
            difference(f"indexed_{name}_us", "indexed_planes_us"),
            {
                "multiply-adds at the peak rate": figure("indexed_arithmetic_us"),
                "memset of as many bytes": figure(f"indexed_fill_{name}_us"),
            },
            per_simd=True,
        )
        for name in ("uint8", *STORED)
    ),
    Stage(
        "indexed: a whole view as float32, normalised",
        total("indexed_open_us", "indexed_plan_us", "indexed_float32_normalised_us"),
        {"decode the crop's rows and resample them": total("decode_us", "resample_float32_normalised_us")},
        per_simd=True,
    ),
)
SUMMED: tuple[Value, ...] = (
    figure("read_again_us"),
    figure("indexed_open_us"),
    figure("indexed_plan_us"),
    figure("indexed_float32_normalised_us"),
    batch_share("hand_over_loader_work"),
)
TOTALS = (
    ("sum_us", "sum, µs"),
    ("sum_images_per_s", "sum, images/s"),
    ("loader_images_per_s", "Loader, images/s"),
    ("loader_cpu_us", "its work, µs"),
    ("unexplained_us", "not in sum, µs"),
    ("waiting_us", "its waiting, µs"),
)
COUNTS = (  # of an image
    "bytes", "crop_bytes", "multiply_adds", "indexed_bytes", "indexed_samples", "indexed_multiply_adds",
)  # fmt: skip


def main() -> None:
    """Measure, write the figures, and print them as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=int, default=500, help="photos that are looked at")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    try:
        result = measure(given.photos, given.rounds, given.limit)
    except FasttrainError as error:
        sys.exit(f"error: {error}")
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    show(result)


def measure(photos: Path, rounds: int, limit: int) -> dict[str, Any]:
    """All figures of all rounds.

    Raises:
        ConfigError: the native kernels are not there, or the program cannot be compiled or run.
        SourceError: `photos` cannot be read.
    """
    if not loading_available():
        raise ConfigError("the native kernels were not built, so they have no stages; see the README on building them")
    levels, threads = usable_simd(), sorted({1, available_cores()})
    found: Rounds = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="fasttrain_stages_") as scratch:
        folder = Path(scratch)
        say("compiling, and preparing photos")
        program = compile_program("stages", folder)
        samples = choose_samples(photos, limit)
        photos_beton, plan = folder / "photos.beton", folder / "plan.txt"
        write_beton(samples, photos_beton, raw=False, workers=available_cores())
        write_plan(photos_beton, SIZE, plan)
        pixels_beton = write_pixels(folder)
        warm([photos_beton, pixels_beton])
        for turn in range(rounds):
            say(f"round {turn + 1}/{rounds}")
            for (name, simd), value in native_figures(program, plan).items():
                found[name, simd].append(value)
            for part, value in hand_over_us(pixels_beton).items():
                found[f"hand_over_{part}", ANY].append(value)
            for simd in levels:
                for number in threads:
                    rate, cpu_us = loader_pass(photos_beton, len(samples), SIZE, number, simd)
                    found[f"loader_{number}", simd].append(rate)
                    found[f"loader_cpu_{number}", simd].append(cpu_us)
    return {
        "machine": machine_facts(),
        "images": len(samples),
        "left_out": int(found["left_out", ANY][0]),  # of the native stages, which leave them to Pillow
        "size": SIZE,
        "batch_size": BATCH,
        "an_image": {name: round(found[name, ANY][0], 1) for name in COUNTS},
        "multiply_adds_a_ns": {simd: summary(found["multiply_adds_a_ns", simd]) for simd in levels},
        "stages": [entry for stage in STAGES for entry in stage_entries(stage, found, levels, rounds)],
        "totals": [total_entry(found, simd, number, rounds) for number in threads for simd in levels],
    }


def compile_program(name: str, folder: Path) -> Path:
    """A program of ``native/``, with the kernels' sources.

    Raises:
        ConfigError: there is no compiler, or it fails.
    """
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise ConfigError(f"there is no C++ compiler {compiler!r}; apt-get install build-essential libjpeg-dev")
    sources = [*(HERE / "native").glob("*.cpp"), *KERNELS.glob("*.cpp")]
    others = PROGRAMS - {name}
    wants_python = "module.cpp"  # and its headers
    kept = sorted(str(path) for path in sources if path.stem not in others and not path.name.endswith(wants_python))
    program = folder / name
    command = [compiler, *FLAGS, f"-I{KERNELS}", *kept, "-ljpeg", "-o", str(program)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ConfigError(f"benchmarks/native cannot be compiled: {ended.stderr.strip().splitlines()[0]}")
    return program


def native_figures(program: Path, plan: Path) -> dict[tuple[str, str], float]:
    """One round of the native stages, by name and instruction set.

    Raises:
        ConfigError: it failed.
    """
    ended = subprocess.run([str(program), str(plan)], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise ConfigError(f"the native stages failed with exit code {ended.returncode}: {ended.stderr.strip()}")
    lines = (line.split() for line in ended.stdout.splitlines())
    return {(name, simd): float(value) for name, simd, value in lines}


# --- figures ----------------------------------------------------------------------------------------------------------


def summary(values: list[float]) -> dict[str, float]:
    """Median and spread."""
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def stage_entries(stage: Stage, found: Rounds, levels: list[str], rounds: int) -> list[dict[str, Any]]:
    """One entry, or one for each instruction set."""
    entries = []
    for simd in levels if stage.per_simd else [ANY]:

        def every(value: Value, simd: str = simd) -> list[float]:
            return [value(found, simd, turn) for turn in range(rounds)]

        times = every(stage.time)
        floors = {name: summary(every(value)) for name, value in stage.floors.items()}
        entry = {"stage": stage.name, "simd": simd if stage.per_simd else None, "unit": stage.unit, **summary(times)}
        entries.append({**entry, "rounds": [round(value, 2) for value in times], "floors": floors})
    return entries


def total_entry(found: Rounds, simd: str, threads: int, rounds: int) -> dict[str, Any]:
    """The sum of the stages beside what the Loader does."""
    sums = [sum(value(found, simd, turn) for value in SUMMED) for turn in range(rounds)]
    rates, worked = found[f"loader_{threads}", simd], found[f"loader_cpu_{threads}", simd]
    return {
        "simd": simd,
        "threads": threads,
        "sum_us": summary(sums),
        "sum_images_per_s": summary([threads * 1e6 / total for total in sums]),
        "loader_images_per_s": summary(rates),
        "loader_cpu_us": summary(worked),  # of all cores, an image
        "unexplained_us": summary([cpu - total for cpu, total in zip(worked, sums, strict=True)]),
        "waiting_us": summary([threads * 1e6 / rate - cpu for rate, cpu in zip(rates, worked, strict=True)]),
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"\n{'stage, and below it what it is held against':<64}{'':9}{'':10}{'median':>9}{'min':>9}{'max':>9}")
    for entry in result["stages"]:
        print(f"{entry['stage']:<64}{entry['simd'] or '':9}{entry['unit']:10}{spread(entry)}")
        for name, floor in entry["floors"].items():
            print(f"    {name:<79}{spread(floor)}")
    print(f"\n{'threads':<14}" + "".join(f"{heading:>18}" for _, heading in TOTALS))
    for entry in result["totals"]:
        name = f"{entry['threads']}, {entry['simd']}"
        print(f"{name:<14}" + "".join(f"{entry[key]['median']:>18,.0f}" for key, _ in TOTALS))


def spread(entry: dict[str, Any]) -> str:
    """Median, least and largest, in columns."""
    return "".join(f"{entry[key]:>9,.1f}" for key in ("median", "min", "max"))


if __name__ == "__main__":
    main()
