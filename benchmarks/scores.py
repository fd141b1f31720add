"""Passes over a score matrix and ensembles: `fasttrain bench scores`, its figures kept in ``benchmarks/results/``.

python benchmarks/scores.py [--rounds 5] [--rows 90000] [--columns 5000] [--peer-rows 9000] [--solve-rows 2000]
    [--timeout 600] [--only NAME ...] [--out FILE] [--scratch DIR]
"""

import argparse
import json
from pathlib import Path

from fasttrain.tools.bench.scores import ScoresBench, bench_scores

RESULTS = Path(__file__).parent / "results" / "scores.json"


def main() -> None:
    """Measure, write the figures, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("rounds", 5),
        ("rows", 90_000),
        ("columns", 5_000),
        ("peer_rows", 9_000),
        ("solve_rows", 2_000),
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--timeout", type=float, default=600.0, dest="timeout_s", help="seconds a contestant has")
    parser.add_argument("--only", nargs="+", default=(), help="contestants")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = vars(parser.parse_args())
    out = given.pop("out")
    result = bench_scores(ScoresBench(**given))
    out.write_text(json.dumps(result, indent=2) + "\n")
    for entry in result["ratios"]:
        print(f"{entry['ours']} / {entry['theirs']}: {entry['ratio']} ({entry['min']} to {entry['max']})")


if __name__ == "__main__":
    main()
