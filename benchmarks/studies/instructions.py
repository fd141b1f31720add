"""How many instructions the indexed way to a view executes, stage by stage, as callgrind counts them.

    python benchmarks/studies/instructions.py PHOTOS [--limit 40]
    python benchmarks/studies/instructions.py PHOTOS --step "what was changed" --predicted "what it was thought to do"

Counts do not depend on what else the machine does, so that a change of a per cent is seen. They are no times: a look-up
that waits for memory and an addition count the same. The views are those of the Loader's first epoch at 224 pixels.
With ``--step`` the change is noted in the results, with the counts of the stages that it changed before and after.

Wants valgrind, of a version that knows AVX2 (Debian: apt-get install valgrind).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from python_stages import write_plan
from stages import SIZE, compile_program

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError, FasttrainError
from fasttrain.kernels.loading import current_simd
from fasttrain.tools.bench.loader_data import choose_samples, write_beton
from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).resolve().parents[1] / "results" / "loader_instructions.json"
KINDS = ("uint8", "float16", "float32")
COUNTED = ("open", "plan", "entropy", "planes", *(f"view_{kind}" for kind in KINDS))  # by native/count.cpp
VALGRIND = ("valgrind", "--tool=callgrind", "--toggle-collect=counted_stage", "--callgrind-out-file=/dev/null")
NOTICED = 0.002  # a share of a stage's instructions


def main() -> None:
    """Count, write the figures, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=40, help="photos that are looked at")
    parser.add_argument("--step", help="what was changed since the results were written")
    parser.add_argument("--predicted", default="", help="what the change was thought to do, written down before")
    parser.add_argument("--thrown-away", action="store_true", help="the step: not kept, so the other figures stay")
    parser.add_argument("--note", default="", help="on the step: what else was seen")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    try:
        photos, stages = count_stages(given.photos, given.limit)
    except FasttrainError as error:
        sys.exit(f"error: {error}")
    known: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    steps = known.get("steps", [])
    if given.step:
        noted = {"kept": not given.thrown_away, "note": given.note}
        measured = changes(known.get("stages", {}), stages)
        steps.append({"what": given.step, "predicted": given.predicted, "measured": measured, **noted})
    facts = {"machine": machine_facts(), "simd": current_simd(), "images": photos, "size": SIZE}
    result = {**facts, "unit": "instructions/image", "stages": stages, "steps": steps}
    if given.thrown_away:
        result = {**known, "steps": steps}
    given.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    for name, count in stages.items():
        print(f"{name:<44}{count:>12,}")


def count_stages(source: Path, limit: int) -> tuple[int, dict[str, int]]:
    """The photos that have an index, and the instructions of an image in each stage.

    Raises:
        ConfigError: there is no compiler or no valgrind, or one of them fails.
        SourceError: `source` cannot be read.
    """
    if shutil.which("valgrind") is None:
        raise ConfigError("there is no valgrind to count with; apt-get install valgrind")
    with tempfile.TemporaryDirectory(prefix="fasttrain_instructions_") as scratch:
        folder = Path(scratch)
        say("compiling, and preparing photos")
        program = compile_program("count", folder)
        photos_beton, plan = folder / "photos.beton", folder / "plan.txt"
        write_beton(choose_samples(source, limit), photos_beton, raw=False, workers=1)
        write_plan(photos_beton, SIZE, plan)
        found = {}
        for stage in COUNTED:
            say(f"counting {stage}")
            photos, found[stage] = instructions(program, plan, stage)
    stored = {f"resample, mix, store as {kind}": found[f"view_{kind}"] - found["planes"] for kind in KINDS}
    return photos, {
        "header and tables": found["open"],
        "weights": found["plan"],
        "entropy code": found["entropy"],
        "inverse DCT": found["planes"] - found["entropy"],
        **stored,
        "a whole view as float32": found["open"] + found["plan"] + found["view_float32"],
    }


def instructions(program: Path, plan: Path, stage: str) -> tuple[int, int]:
    """The number of photos, and the instructions of an image in a stage.

    Raises:
        ConfigError: valgrind fails.
    """
    command = [*VALGRIND, str(program), str(plan), stage]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    collected = re.search(r"Collected : (\d+)", ended.stderr)
    if ended.returncode or collected is None:
        raise ConfigError(f"valgrind failed with exit code {ended.returncode}: {ended.stderr.strip()[-300:]}")
    photos = int(ended.stdout)
    return photos, int(collected[1]) // photos


def changes(before: dict[str, int], after: dict[str, int]) -> dict[str, list[int]]:
    """The stages whose counts differ: before and after."""
    return {
        name: [before[name], count]
        for name, count in after.items()
        if name in before and abs(count - before[name]) > NOTICED * before[name]
    }


if __name__ == "__main__":
    main()
