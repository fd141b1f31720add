"""Passes over a score matrix and ensembles: `fasttrain bench scores`, its figures kept in ``benchmarks/results/``.

python benchmarks/scores.py [--rounds 5] [--rows 90000] [--columns 5000] [--peer-rows 9000] [--scratch DIR]
"""

import argparse
import json
from pathlib import Path

from fasttrain.tools.bench.scores import ScoresBench, bench_scores

RESULTS = Path(__file__).parent / "results" / "scores.json"


def main() -> None:
    """Measure, write the figures, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rounds", 5), ("rows", 90_000), ("columns", 5_000), ("peer_rows", 9_000)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--scratch", type=Path)
    result = bench_scores(ScoresBench(**vars(parser.parse_args())))
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    for entry in result["ratios"]:
        print(f"{entry['ours']} / {entry['theirs']}: {entry['ratio']} ({entry['min']} to {entry['max']})")


if __name__ == "__main__":
    main()
