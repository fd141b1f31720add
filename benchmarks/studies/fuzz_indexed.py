"""An hour of libFuzzer on the decoder of indexed JPEGs, under AddressSanitizer and UndefinedBehaviorSanitizer.

The target, `benchmarks/native/fuzz_indexed.cpp`, decodes views, planes and coefficients of a JPEG with an index, either
or both damaged. It must end in an error or in output, the same each time; and a stream that `check_jpeg` accepts,
with the index that it makes of it, must give libjpeg's coefficients. The corpus begins with small JPEGs of every kind
that has an index.

    python benchmarks/studies/fuzz_indexed.py                      goes on where it stopped, until an hour is full
    python benchmarks/studies/fuzz_indexed.py --minutes 5          five minutes more
    python benchmarks/studies/fuzz_indexed.py --photos FOLDER      photos (not too large) in the corpus as well
    python benchmarks/studies/fuzz_indexed.py --input FILE         one input, such as one that was found

It wants clang with libFuzzer (Debian: `apt-get install clang-14 libclang-rt-14-dev`; CXX names another one). What
libFuzzer finds worth keeping stays in the corpus's folder. An input that ends the target is a finding: it goes into the
result, and the next slice of time begins with what there is.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from fasttrain.base.atomic import atomic_path
from fasttrain.base.process import available_cores
from fasttrain.kernels.indexed import index_jpeg
from fasttrain.tools.bench.measure import machine_facts, run_to_end
from fasttrain.tools.mutants import streams

REPOSITORY = Path(__file__).resolve().parents[2]
TARGET = REPOSITORY / "benchmarks" / "native" / "fuzz_indexed.cpp"
KERNELS = REPOSITORY / "kernels" / "native"
RESULTS = REPOSITORY / "benchmarks" / "results" / "fuzz_indexed.json"
BUILD = REPOSITORY / "build" / "fuzz_indexed"
CLANGS = ("clang++", *(f"clang++-{version}" for version in range(21, 13, -1)))
FLAGS = ("-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only")  # as in setup.py
FLAGS += ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1")
# Not _GLIBCXX_SANITIZE_VECTOR: libFuzzer is made without, and its copies of std::vector's functions are linked.
FLAGS += ("-D_GLIBCXX_ASSERTIONS",)
TOTAL = 3600.0  # seconds, of all jobs together
SLICE = 60.0
CONTROLS = 34  # bytes in front of the JPEG, the last two of which tell the number of entries
MAX_INPUT = 16 << 10
MAX_SHOWN = 4 << 10  # bytes of an input that is put into the result
MAX_ALIKE = 3  # findings of one kind before the study gives up
LIMITS = ("-timeout=20", "-rss_limit_mb=2048", "-malloc_limit_mb=512", f"-max_len={MAX_INPUT}", "-print_final_stats=1")


@dataclass
class Slice:
    """What one job of one slice did."""

    seconds: float
    executions: int
    edges: int
    features: int
    finding: dict[str, Any] | None


@dataclass
class Study:
    """What all slices add up to."""

    seconds: float = 0.0
    executions: int = 0
    edges: int = 0
    features: int = 0
    corpus: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, done: list[Slice]) -> None:
        """Take note of a slice's jobs, which share their corpus."""
        self.seconds = round(self.seconds + sum(one.seconds for one in done), 1)
        self.executions += sum(one.executions for one in done)
        self.edges = max(self.edges, *(one.edges for one in done))
        self.features = max(self.features, *(one.features for one in done))
        self.findings += [one.finding for one in done if one.finding is not None]

    def is_stuck(self) -> bool:
        """Whether the same thing is found again and again."""
        kinds = [finding["what"].splitlines()[-1] for finding in self.findings]
        return any(kinds.count(kind) >= MAX_ALIKE for kind in kinds)


# --- the program ------------------------------------------------------------------------------------------------------


def compiler() -> str:
    """A clang++ that has libFuzzer.

    Raises:
        SystemExit: there is none.
    """
    named = os.environ.get("CXX")
    for name in (named,) if named and "clang" in named else CLANGS:
        if shutil.which(name):
            return name
    raise SystemExit(
        "there is no clang++, which has libFuzzer; this brings it: apt-get install clang-14 libclang-rt-14-dev"
    )


def compiler_version(clang: str) -> str:
    return subprocess.run([clang, "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]


def sources() -> list[Path]:
    """The target and the kernels, but for what wants Python's headers."""
    return [TARGET, *(path for path in sorted(KERNELS.glob("*.cpp")) if not path.name.endswith("module.cpp"))]


def digest(clang: str, *compiled: Path) -> str:
    """Changes with what these sources become: with them, all headers and the compiler."""
    found = xxhash.xxh3_64(" ".join((compiler_version(clang), *FLAGS)).encode())
    for path in (*compiled, *sorted(KERNELS.glob("*.h")), *sorted(KERNELS.glob("*.inc"))):
        found.update(path.read_bytes())
    return found.hexdigest()


def built(clang: str) -> Path:
    """The program, compiled as far as it has changed.

    Raises:
        SystemExit: it cannot be compiled.
    """
    program = BUILD / f"fuzz_indexed-{digest(clang, *sources())}"
    if not program.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(available_cores()) as pool:
            objects = list(pool.map(partial(compiled, clang), sources()))
        run_compiler([clang, "-fsanitize=fuzzer,address,undefined", *map(str, objects), "-ljpeg"], program)
    return program


def compiled(clang: str, source: Path) -> Path:
    out = BUILD / f"{source.stem}-{digest(clang, source)}.o"
    if not out.exists():
        run_compiler([clang, *FLAGS, "-fsanitize=fuzzer-no-link", f"-I{KERNELS}", "-c", str(source)], out)
    return out


def run_compiler(command: list[str], out: Path) -> None:
    with atomic_path(out) as part:
        done = subprocess.run([*command, "-o", str(part)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"the target cannot be compiled by {command[0]}:\n{done.stdout[-2000:]}")


# --- the corpus -------------------------------------------------------------------------------------------------------


def encoded(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    stream = BytesIO()
    streams.picture(width, height, width + height).convert(mode).save(stream, "JPEG", **{"quality": 75, **options})
    return stream.getvalue()


def seed_streams() -> Iterator[bytes]:
    """Small JPEGs: every sub-sampling, grey, odd sizes, one entry a row and several, tables of their own."""
    yield from (streams.stream(name) for name in streams.NAMES)
    for width, height in ((1, 1), (8, 8), (17, 9), (33, 40), (130, 24), (300, 17)):
        for sampling in ("4:4:4", "4:2:2", "4:2:0"):
            yield encoded(width, height, subsampling=sampling, quality=40 + width % 50)
        yield encoded(width, height, "L", optimize=True)
    yield encoded(60, 44, quality=100, subsampling="4:4:4")
    yield encoded(60, 44, qtables=[[300] * 64, [1000] * 64])


def as_input(stream: bytes, index: np.ndarray, number: int) -> bytes:
    """An input of the target; `number` decides what is decoded."""
    controls = np.random.default_rng(number).integers(0, 256, CONTROLS, np.uint8)
    controls[-2:] = len(index) & 255, len(index) >> 8
    return controls.tobytes() + stream + index.astype("<u8").tobytes()


def plant(corpus: Path, photos: Path | None) -> None:
    """Put the inputs to begin with into `corpus`."""
    corpus.mkdir(parents=True, exist_ok=True)
    found = [*seed_streams(), *((path.read_bytes() for path in sorted(photos.iterdir())) if photos else ())]
    for number, stream in enumerate(found):
        try:
            index = index_jpeg(stream)
        except ValueError:
            continue
        if index is None or len(index) > 0xFFFF:
            continue
        data = as_input(stream, index, number)
        if len(data) <= MAX_INPUT:
            (corpus / f"seed-{xxhash.xxh3_64_hexdigest(data)}").write_bytes(data)


# --- slices -----------------------------------------------------------------------------------------------------------


def gist(complaints: str) -> str:
    """The lines of a sanitizer's report that say what and where."""
    lines = [line.strip() for line in complaints.splitlines()]
    telling = [re.sub(r"0x[0-9a-f]+|==\d+==", "", line) for line in lines if is_telling(line)]
    return "\n".join(dict.fromkeys(telling[:8])) or "\n".join(lines[-5:])


def is_telling(line: str) -> bool:
    return any(
        mark in line for mark in ("runtime error", "ERROR: ", "terminating", " fasttrain::", "what():", "SUMMARY")
    )


def run_slice(program: Path, corpus: Path, seconds: float, job: int) -> Slice:
    """Let one process fuzz for `seconds`."""
    findings = corpus.parent / f"findings-{job}"
    shutil.rmtree(findings, ignore_errors=True)
    findings.mkdir(parents=True)
    report: list[str] = []

    def keep(complaints: str) -> str:
        report.append(complaints)
        return gist(complaints)

    command = ["sh", "-c", '"$@" 2>&1', "sh", str(program), f"-max_total_time={seconds:.0f}", *LIMITS]
    command += [f"-artifact_prefix={findings}/", str(corpus)]
    begun = time.monotonic()
    printed, error = run_to_end(command, seconds + 300, gist=keep)
    took = time.monotonic() - begun
    pulses = re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+)", printed, re.MULTILINE)
    stated = re.findall(r"number_of_executed_units: (\d+)", printed)
    executions, edges, features = (int(number) for number in pulses[-1]) if pulses else (0, 0, 0)
    finding = None if error is None else {"what": gist(printed) or error, **found_input(findings)}
    return Slice(took, int(stated[-1]) if stated else executions, edges, features, finding)


def found_input(findings: Path) -> dict[str, Any]:
    """The input that ended a process: its bytes, or where they are."""
    for path in findings.iterdir():
        data = path.read_bytes()
        kept = BUILD / "findings" / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(data)
        shown = {"input": base64.b64encode(data).decode()} if len(data) < MAX_SHOWN else {}
        return {"name": path.name, "bytes": len(data), **shown}
    return {}


# --- results ----------------------------------------------------------------------------------------------------------


def identity(clang: str, photos: Path | None) -> dict[str, Any]:
    """What the findings depend on."""
    return {
        "sources": digest(clang, *sources()),
        "compiler": compiler_version(clang),
        "flags": " ".join(FLAGS),
        "photos": len(list(photos.iterdir())) if photos else 0,
    }


def go_on(about: dict[str, Any]) -> Study:
    """The study as it stands in the result file.

    Raises:
        SystemExit: it was begun with other sources or tools.
    """
    if not RESULTS.exists():
        return Study()
    result = json.loads(RESULTS.read_text())
    if result["about"] != about:
        raise SystemExit(f"the study was begun with other sources or tools; remove {RESULTS} to begin anew")
    return Study(**{key: result[key] for key in asdict(Study())})


def write(about: dict[str, Any], study: Study) -> None:
    with atomic_path(RESULTS) as part:
        part.write_text(json.dumps({"machine": machine_facts(), "about": about, **asdict(study)}, indent=2) + "\n")


def main() -> int:
    """Fuzz, as long as it is wanted."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=TOTAL / 60, help="of this call, all jobs together")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--corpus", type=Path, default=BUILD / "corpus")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--input", type=Path, help="only this one")
    arguments = parser.parse_args()
    clang = compiler()
    program = built(clang)
    if arguments.input is not None:
        return subprocess.run([program, *LIMITS, arguments.input], check=False).returncode
    about = identity(clang, arguments.photos)
    study = go_on(about)
    plant(arguments.corpus, arguments.photos)
    until = min(study.seconds + 60 * arguments.minutes, TOTAL)
    jobs = arguments.jobs
    with ThreadPoolExecutor(jobs) as pool:
        while (left := (until - study.seconds) / jobs) >= 1 and not study.is_stuck():
            job = partial(run_slice, program, arguments.corpus, min(SLICE, left))
            study.add(list(pool.map(job, range(jobs))))
            study.corpus = len(list(arguments.corpus.iterdir()))
            write(about, study)
            print(
                f"{study.seconds / 60:.1f} minutes, {study.executions:,} executions, {study.edges:,} edges, "
                f"{study.features:,} features, {len(study.findings)} findings",
                flush=True,
            )
    return bool(study.findings)


if __name__ == "__main__":
    sys.exit(main())
