"""20,000 damaged and malicious JPEGs and `.beton` files, loaded natively under sanitizers.

Every mutant (`fasttrain.tools.mutants`, a pure function of its seed) goes through the public Loader, `BetonReader` and
`verify` with the native extension built under AddressSanitizer and UndefinedBehaviorSanitizer. It must end in its own,
right pixels, or in an error that names the sample (or the file, where that is refused as a whole): no crash, no hang,
no read out of bounds, no pixels of another sample or an earlier batch. `mutation_checks.py` says how that is checked.

    python benchmarks/studies/mutations.py                    goes on where it stopped, until 20,000 seeds are done
    python benchmarks/studies/mutations.py --seed 4711        one mutant, whatever was done before
    python benchmarks/studies/mutations.py --photos FOLDER    half of the JPEGs made of photos, for a run of its own

Python and torch run in the same processes, but are not built under sanitizers. libjpeg-turbo is the system's, unless
FASTTRAIN_STATIC_JPEG names a static one, for another run; this makes one that AddressSanitizer sees into. Its assembly,
which no sanitizer sees into, is switched off for every other thousand of seeds.

    CFLAGS="-fsanitize=address -g -O1" kernels/native/build_libjpeg_turbo.sh build/libjpeg-turbo-asan
    FASTTRAIN_STATIC_JPEG=$PWD/build/libjpeg-turbo-asan python benchmarks/studies/mutations.py

The work is done in child processes, a chunk of seeds each. If one dies or takes too long, the chunk is halved until the
seed is found that did it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sanitized
import xxhash
from mutation_checks import GROUP, PARTS

from fasttrain.base.atomic import atomic_path
from fasttrain.tools.bench.measure import machine_facts, run_to_end
from fasttrain.tools.mutants import bases_digest, mutant

RESULTS = sanitized.REPOSITORY / "benchmarks" / "results" / "mutations.json"
SOURCES = ("kernels", "kernels/native", "beton_build", "fasttrain/loading", "fasttrain/tools/mutants")
CHECKS = Path(__file__).with_name("mutation_checks.py")
CHUNK = 20 * GROUP
PATIENCE = 900.0  # seconds for a chunk, some twenty times what it takes
FILL = {"checked": 0xA5, "again": 0x3C}


@dataclass
class Study:
    """How the children are started, and what the findings add up to."""

    extension: Path
    photos: Path | None
    home: Path
    counts: dict[str, Counter[str]] = field(default_factory=dict)  # by kind of mutant
    changes: dict[str, Counter[str]] = field(default_factory=dict)  # by what was done
    failures: list[dict[str, Any]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)

    def run(self, seeds: list[int]) -> None:
        """Check `seeds`; where a child fails, halve them until the seed is found."""
        passes: dict[str, list[dict[str, Any]]] = {}
        for part in PARTS:
            printed, error = self._child(part, seeds)
            if error is not None:
                self._halve(seeds, part, error)
                return
            passes[part] = printed
        self._add(*(passes[part] for part in PARTS))
        self.done.update(seeds)

    def _halve(self, seeds: list[int], part: str, error: str) -> None:
        known = len(self.failures)
        if len(seeds) > 1:
            middle = len(seeds) // 2
            self.run(seeds[:middle])
            self.run(seeds[middle:])
        if len(self.failures) == known:  # this very seed, or one that needs the others
            self.failures.append({"seeds": ranges(seeds), "pass": part, "what": error})
            self.done.update(seeds)

    def _child(self, part: str, seeds: list[int]) -> tuple[list[dict[str, Any]], str | None]:
        """What a child printed, and how it failed (None if it did not)."""
        command = [sys.executable, str(CHECKS), part, str(self.extension)]
        command += ["--photos", str(self.photos)] if self.photos else []
        environment = sanitized.environment(FILL[part], seeds[0] // CHUNK % 2 == 0, self.home)
        printed, error = run_to_end(command, PATIENCE, given=json.dumps(seeds), environment=environment, gist=gist)
        return [json.loads(line) for line in printed.splitlines()] if error is None else [], error

    def _add(self, checked: list[dict[str, Any]], again: list[dict[str, Any]]) -> None:
        seconds = {finding["seed"]: finding for group in again for finding in group["findings"]}
        for group in checked:
            for finding in group["findings"]:
                self._count(finding, seconds[finding["seed"]])
            for kind, number in group["handed_over"].items():
                self.counts.setdefault(kind, Counter())["samples decoded by Pillow"] += number

    def _count(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        faults = first["faults"] + second["faults"]
        if (first["result"], first["digest"]) != (second["result"], second["digest"]):
            faults.append("the second pass, with other neighbours and memory, gave something else")
        counts = self.counts.setdefault(first["kind"], Counter())
        counts[first["result"]] += 1
        counts["confirmed by Pillow"] += first["confirmed"]
        for change in set(first["changes"]):
            self.changes.setdefault(f"{first['kind']}, {change}", Counter())[first["result"]] += 1
        if faults:
            self.failures.append({"seeds": [[first["seed"]] * 2], "changes": first["changes"], "what": faults})

    def as_json(self) -> dict[str, Any]:
        """What goes into the result."""
        return {
            "mutants": len(self.done),
            "seeds": ranges(sorted(self.done)),
            "failures": self.failures,
            "kinds": {kind: dict(sorted(counts.items())) for kind, counts in sorted(self.counts.items())},
            "changes": {name: dict(sorted(counts.items())) for name, counts in sorted(self.changes.items())},
        }

    def go_on(self, result: dict[str, Any]) -> None:
        """Take up what `as_json` gave."""
        self.failures = result["failures"]
        self.counts = {kind: Counter(counts) for kind, counts in result["kinds"].items()}
        self.changes = {name: Counter(counts) for name, counts in result["changes"].items()}
        self.done = {seed for first, last in result["seeds"] for seed in range(first, last + 1)}


def gist(complaints: str) -> str:
    """The lines of a sanitizer's report that say what and where; else the last lines."""
    lines = complaints.strip().splitlines()
    telling = [line.strip() for line in lines if "runtime error" in line or "ERROR: " in line or " fasttrain::" in line]
    return "\n".join(telling[:8] or lines[-5:])


def ranges(seeds: Sequence[int]) -> list[list[int]]:
    """Sorted seeds as (first, last) of each unbroken run."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return runs


def built() -> Path:
    """The sanitized extension, compiled unless it is there."""
    libjpeg = os.environ.get("FASTTRAIN_STATIC_JPEG", "")
    key = xxhash.xxh3_64_hexdigest(f"{sources_digest('kernels/native')} {libjpeg} {sanitized.compiler()}".encode())
    folder = sanitized.REPOSITORY / "build" / "sanitized" / key
    found = list((folder / "fasttrain" / "kernels").glob("_native*.so"))
    return found[0] if found else sanitized.build(folder)


def identity(photos: Path | None) -> dict[str, Any]:
    """What the findings depend on: which run they belong to, and what it was made with."""
    libjpeg = os.environ.get("FASTTRAIN_STATIC_JPEG")
    return {
        "libjpeg": libjpeg_version(Path(libjpeg, "include", "jconfig.h") if libjpeg else None),
        "photos": len(list(photos.iterdir())) if photos else 0,
        "sources": sources_digest(*SOURCES),
        "checks": xxhash.xxh3_64_hexdigest(CHECKS.read_bytes() + CHECKS.with_name("mutation_passes.py").read_bytes()),
        "bases": bases_digest(),
        "compiler": sanitized.compiler(),
        "flags": " ".join(sanitized.COMPILE),
        "sanitizers": [Path(sanitized.compiler_library(name)).resolve().name for name in ("libasan.so", "libubsan.so")],
    }


def libjpeg_version(header: Path | None) -> str:
    """Version of libjpeg-turbo, and whether it is the system's or a static one."""
    if header is None:
        compiler = os.environ.get("CXX", "g++")
        command = [compiler, "-E", "-dM", "-include", "cstdio", "-include", "jpeglib.h", "-x", "c++", "-"]
        done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        text = done.stdout
    else:
        text = header.read_text()
    [version] = [line.split()[-1] for line in text.splitlines() if "define LIBJPEG_TURBO_VERSION " in line]
    return f"libjpeg-turbo {version}, " + ("the system's" if header is None else "static")


def sources_digest(*folders: str) -> str:
    """Changes with the sources in `folders` of the repository."""
    digest = xxhash.xxh3_64()
    for folder in folders:
        for path in sorted((sanitized.REPOSITORY / folder).glob("*.*")):
            if path.suffix in (".py", ".cpp", ".h", ".inc"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


class Results:
    """The file of results: a run for each libjpeg, with and without photos.

    Raises:
        SystemExit: this run was begun with other sources or tools.
    """

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about
        self._runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
        mine = [run for run in self._runs if all(run["about"][key] == about[key] for key in ("libjpeg", "photos"))]
        self.before: dict[str, Any] | None = mine[0] if mine else None
        if self.before is not None and self.before["about"] != about:
            raise SystemExit(f"this run was begun with other sources or tools; take it out of {RESULTS} to begin anew")
        self._runs = [run for run in self._runs if run is not self.before]

    def write(self, study: Study) -> None:
        """Put the study's findings into the file."""
        runs = sorted([*self._runs, {"about": self._about, **study.as_json()}], key=lambda run: str(run["about"]))
        with atomic_path(RESULTS) as part:
            part.write_text(json.dumps({"machine": machine_facts(), "runs": runs}, indent=2) + "\n")


def show(study: Study, seed: int) -> None:
    """Check one mutant and say what came of it."""
    photos = [path.read_bytes() for path in sorted(study.photos.iterdir())] if study.photos else []
    one = mutant(seed, photos=photos)
    study.run([seed])
    print(f"seed {seed}: {one.kind} made of {one.base!r} ({', '.join(one.changes)}), {len(one.data)} bytes")
    print(json.dumps({"kinds": study.as_json()["kinds"], "failures": study.failures}, indent=2))


def main() -> int:
    """Run the study, as far as it is wanted."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="seeds 0 to COUNT - 1")
    parser.add_argument("--budget-minutes", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, help="only this mutant")
    parser.add_argument("--photos", type=Path)
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.budget_minutes
    with tempfile.TemporaryDirectory() as home:
        study = Study(built(), arguments.photos, Path(home))
        if arguments.seed is not None:
            show(study, arguments.seed)
            return bool(study.failures)
        results = Results(identity(arguments.photos))
        if results.before is not None:
            study.go_on(results.before)
        left = [seed for seed in range(arguments.count) if seed not in study.done]
        for start in range(0, len(left), CHUNK):
            if time.monotonic() > until:
                break
            study.run(left[start : start + CHUNK])
            results.write(study)
            print(f"{len(study.done):,} mutants, {len(study.failures)} failures", flush=True)
    return bool(study.failures)


if __name__ == "__main__":
    sys.exit(main())
