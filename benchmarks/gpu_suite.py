"""Everything that is to be known of a GPU, in one command of at most eight minutes: right results, then speed.

python benchmarks/gpu_suite.py PHOTOS --name h200 [--only SECTION] [--images 20000] [--device cuda|cpu] [--results DIR]

It needs a folder of JPEG photos (few are repeated) and fasttrain installed; where there is no network, by
`pip install --no-build-isolation --no-deps .`, with those of its requirements that the machine lacks (it names them)
from wheels. Decoders that are not there are left out: DALI and nvImageCodec come with
`pip install nvidia-dali-cuda130`. The last lines, and ``verdict`` in the JSON file, say whether all results were right,
which GPU decoder is the fastest and which the lightest, and what share of the speed on synthetic batches a training has
on real ones. Each section runs in a process of its own, with a time limit: one that fails or hangs is told as such,
what it had measured is kept, and the others run. With `--device cpu` all sections run in small, in this process, which
tries the suite itself; its figures say nothing.
"""

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gpu.common import Row, Task
from gpu.verdict import lines, verdict

from fasttrain.base.atomic import atomic_open
from fasttrain.base.console import say
from fasttrain.tools.bench.measure import machine_facts, run_to_end

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Section:
    """A part of the suite.

    Attributes:
        function: ``MODULE:NAME`` of what takes a `Task`; imported in the section's own process alone.
        seconds: it may take.
    """

    name: str
    function: str
    seconds: float

    def load(self) -> Callable[[Task], None]:
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)


# Eight minutes together.
SECTIONS = (
    Section("parity", "gpu.parity:parity", 45),
    Section("loading", "gpu.loading:loading", 45),
    Section("stage", "gpu.stage:stage", 45),
    Section("resident", "gpu.resident:resident", 25),
    Section("nvjpeg", "gpu.decoders:nvjpeg", 30),
    Section("nvimagecodec", "gpu.decoders:nvimagecodec", 30),
    Section("dali", "gpu.decoders:dali", 40),
    Section("cpu", "gpu.decoders:cpu", 35),
    Section("optimizers", "gpu.optimizers:optimizers", 40),
    Section("scores", "gpu.scores:scores", 25),
    Section("training", "gpu.training:training", 120),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sections, write one JSON file, print a table; exit code 1 where a result was not right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--name", default=platform.node() or "unnamed", help="of the machine, for the file's name")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--only", action="append", choices=[section.name for section in SECTIONS])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--section", help=argparse.SUPPRESS)  # this process is one section's
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    if not given.photos.is_dir():
        parser.error(f"{given.photos} is no folder; give one with JPEG photos")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no usable GPU here; --device cpu tries the suite in small")
    if given.section is not None:
        run_section(next(section for section in SECTIONS if section.name == given.section), given, given.rows)
        return
    chosen = [section for section in SECTIONS if given.only is None or section.name in given.only]
    result: dict[str, Any] = {"machine": {**machine_facts(), **device_facts(device)}, "sections": {}}
    if absent := missing_requirements():
        result["machine"]["missing"] = absent
        say(f"not installed here, so sections that need them will fail: {', '.join(absent)}")
    path = given.results / f"gpu_suite_{given.name}.json"
    for section in chosen:
        say(f"{section.name} (at most {section.seconds:.0f} s)")
        result["sections"][section.name] = supervise(section, given, device)
        result["verdict"] = verdict(result["sections"])
        with atomic_open(path) as file:  # complete as far as it goes, whatever comes
            file.write(json.dumps(result, indent=2) + "\n")
    print(table(result))
    say(f"written to {path}")
    if result["verdict"].get("parity", {}).get("failed"):
        raise SystemExit(1)


def run_section(section: Section, given: argparse.Namespace, rows: Path) -> None:
    """Work in this process."""
    device = torch.device(given.device)
    small = device.type == "cpu"
    images = min(given.images, 64) if small else given.images
    section.load()(Task(given.photos, device, images, small, rows, time.monotonic() + 0.85 * section.seconds))


def supervise(section: Section, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What became of a section: its seconds and rows, and an error if it did not come to its end."""
    start = time.monotonic()
    error = None
    with TemporaryDirectory(prefix="fasttrain_gpu_") as folder:
        rows = Path(folder) / "rows"
        rows.touch()
        if device.type == "cpu":
            try:
                run_section(section, given, rows)
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
        else:
            # A kernel that reads where it must not takes the whole process with it: not that of the other sections.
            passed = [given.photos, "--device", given.device, "--images", given.images]
            command = [sys.executable, __file__, *passed, "--section", section.name, "--rows", rows]
            environment = {**os.environ, "TMPDIR": folder}  # what a section that is killed leaves goes with ours
            _, error = run_to_end([str(part) for part in command], section.seconds, environment=environment)
        found = _latest(rows.read_text())
    outcome: dict[str, Any] = {"seconds": round(time.monotonic() - start, 1), "rows": [_rounded(row) for row in found]}
    return outcome if error is None else {**outcome, "error": error}


def _latest(text: str) -> list[Row]:
    """The last row of each name; a line that was cut off is none."""
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return list({row["name"]: row for row in rows}.values())


def _rounded(row: Row) -> Row:
    """Four digits say all that such measurements can."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(entry) for entry in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {key: short(value) for key, value in row.items()}


def missing_requirements() -> list[str]:
    """Packages that fasttrain asks for and that are not installed."""
    absent = []
    for line in metadata.requires("fasttrain") or []:
        found = re.match(r"[\w.-]+", line)
        if found is None or "extra ==" in line:
            continue
        try:
            metadata.version(found[0])
        except metadata.PackageNotFoundError:
            absent.append(found[0])
    return absent


def device_facts(device: torch.device) -> dict[str, Any]:
    """Name and versions of the GPU's side."""
    facts: dict[str, Any] = {"device": str(device), "cuda": torch.version.cuda}
    try:
        import triton

        facts["triton"] = triton.__version__
    except ImportError:
        facts["triton"] = None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
        facts["capability"] = f"{properties.major}.{properties.minor}"
    return facts


def table(result: dict[str, Any]) -> str:
    """All rows, a section after the other, and what they come to."""
    shown = [str(result["machine"].get("gpu", result["machine"]["processor"]))]
    for name, section in result["sections"].items():
        shown += ["", f"{name}, {section['seconds']} s" + (f": {section['error']}" if "error" in section else "")]
        for row in section["rows"]:
            figures = [f"{key} {_figure(value)}" for key, value in row.items() if key not in ("name", "rounds")]
            shown.append(f"  {row['name']:<62} {', '.join(figures)}")
    return "\n".join([*shown, "", *lines(result["verdict"])])


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


if __name__ == "__main__":
    main()
