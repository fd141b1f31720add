"""Whether decoding by the random-access index changes what a training gives: PACS to sketch, seed by seed.

The same recipe as ``pacs_sketch.py`` (photo + art_painting + cartoon, tested on sketch after the last epoch, so nothing
is chosen on it), trained and evaluated with the index and without (``--no-index``: libjpeg decodes). The pixels differ
by rounding, so that two runs of a seed part as two seeds do; what counts is the mean over the seeds.

    python benchmarks/studies/index_seeds.py PACS_FOLDER WEIGHTS.pth --seeds 0 1 2

Resumable: results are kept per seed in ``benchmarks/results/index_seeds.json``; what is there is not run again.
"""

import argparse
import json
import tempfile
from pathlib import Path

from pacs_sketch import fasttrain, make_tree, print_means, stored_results, train_and_evaluate

from fasttrain.tools.bench.measure import machine_facts

RESULTS = Path(__file__).resolve().parents[1] / "results" / "index_seeds.json"
WAYS = {"index": "--index", "libjpeg": "--no-index"}


def main() -> None:
    """Run what is not in the results yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pacs", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results = stored_results(RESULTS)
    results["machine"] = machine_facts()
    with tempfile.TemporaryDirectory(prefix="index_seeds_") as scratch:
        folder = Path(scratch)
        for name, source in zip(("train", "test"), make_tree(arguments.pacs, folder), strict=True):
            fasttrain("build", str(source), str(folder / f"{name}.beton"))
        for seed in arguments.seeds:
            for way, option in WAYS.items():
                run = results["runs"].setdefault(str(seed), {})
                if way not in run:
                    run[way] = train_and_evaluate(folder, arguments.weights, seed, folder / f"{way}{seed}", option)
                    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
            print(seed, results["runs"][str(seed)], flush=True)
    print_means(results["runs"], WAYS)


if __name__ == "__main__":
    main()
