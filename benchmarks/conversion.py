"""Dataset conversion beside FFCV's writer: `fasttrain bench build`, its figures kept in ``benchmarks/results/``.

python benchmarks/conversion.py FOLDER_OF_PHOTOS [--rounds 5] [--repeat 2]
"""

import argparse
import json
from pathlib import Path

from fasttrain.tools.bench.conversion import bench_conversion

RESULTS = Path(__file__).parent / "results" / "conversion.json"


def main() -> None:
    """Measure, write the figures, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=2)
    arguments = parser.parse_args()
    result = bench_conversion(arguments.photos, rounds=arguments.rounds, repeat=arguments.repeat)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    for entry in result["ratios"]:
        print(f"{entry['ours']} / {entry['theirs']}: {entry['ratio']} ({entry['min']} to {entry['max']})")


if __name__ == "__main__":
    main()
