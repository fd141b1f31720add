"""Training beside the peers: `fasttrain bench train`, its figures kept in ``benchmarks/results/``.

python benchmarks/training.py [--photos PHOTOS] [--pacs PACS --weights WEIGHTS.pth] [--rounds 3] [--only SET]

PHOTOS is a flat folder of ``WNID_name.JPEG`` files, whose names tell the classes; PACS a folder of domains, each with a
folder a class, of which every fifth image is held out to validate on; WEIGHTS a state dict of EfficientNet-Lite 0.
"""

import argparse
import csv
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fasttrain.base.errors import FasttrainError
from fasttrain.tools.bench.train import TrainBench, bench_train

RESULTS = Path(__file__).parent / "results"
HELD_OUT = 5  # every fifth image


@dataclass(frozen=True)
class Set:
    """What is measured on which images.

    Attributes:
        images: ``photos`` or ``pacs``.
        pretrained: from the weights that are given.
    """

    images: str
    settings: TrainBench
    pretrained: bool = False


RESNET18 = TrainBench(model="resnet18", size=128, batch_size=64, optimizer="sgd", lr=0.05)
LITE0 = TrainBench(model="tf_efficientnet_lite0", size=128, batch_size=32, optimizer="adamw", weights_match="order")
SMALL = TrainBench(model="mobilenetv3_small_050", size=96, batch_size=64, optimizer="adamw", lr=1e-3)
SETS = {
    "resnet18": Set("pacs", replace(RESNET18, epochs=2)),
    "resnet18_bf16": Set("pacs", replace(RESNET18, epochs=2, amp="bf16")),
    "efficientnet_lite0": Set("pacs", replace(LITE0, epochs=4, target=0.85), pretrained=True),
    # A network so small that whoever decodes the faster trains the faster: photos of 110 KB, views of 96 pixels.
    "load_bound": Set("photos", replace(SMALL, epochs=4)),
}


def main() -> None:
    """Measure each set, write its figures, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--pacs", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=list(SETS), help="a set; may be given again")
    parser.add_argument("--contestant", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for name in given.only or SETS:
        missing = missing_of(SETS[name], given)
        if missing:
            print(f"{name}: left out, for want of {' and '.join(missing)}", flush=True)
            continue
        try:
            result = measure(SETS[name], given)
        except FasttrainError as error:
            raise SystemExit(f"error: {error}") from None
        (given.results / f"training_{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        for entry in result["ratios"]:
            spread = f"{entry['min']} to {entry['max']}"
            further = "".join(f", {key} {entry[key]}" for key in ("to_target", "top1_difference") if key in entry)
            print(f"{name}: {entry['ours']} / {entry['theirs']}: {entry['ratio']} ({spread}){further}", flush=True)


def missing_of(chosen: Set, given: argparse.Namespace) -> list[str]:
    """Options that a set needs and that were not given."""
    needed = [chosen.images, *(["weights"] if chosen.pretrained else [])]
    return [f"--{option}" for option in needed if getattr(given, option) is None]


def measure(chosen: Set, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a set."""
    settings = replace(chosen.settings, rounds=given.rounds, only=given.contestant)
    if chosen.pretrained:
        settings = replace(settings, weights=given.weights)
    with tempfile.TemporaryDirectory(prefix="fasttrain_bench_") as scratch:
        folder = Path(scratch)
        if chosen.images == "photos":
            return bench_train(list_photos(given.photos, folder), settings)
        training, validation = split_pacs(given.pacs, folder)
        return bench_train(training, replace(settings, val=validation))


def list_photos(photos: Path, folder: Path) -> Path:
    """A table of the photos with the WordNet ids that their names begin with."""
    table = folder / "photos.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([str(path.resolve()), path.name.split("_")[0]] for path in sorted(photos.glob("*.JPEG")))
    return table


def split_pacs(pacs: Path, folder: Path) -> tuple[Path, Path]:
    """Trees of links, a folder a class, of all domains: what is trained on, and every fifth image of each class and
    domain, which is held out."""
    for domain in sorted(path for path in pacs.iterdir() if path.is_dir()):
        for names in sorted(path for path in domain.iterdir() if path.is_dir()):
            for number, image in enumerate(sorted(names.iterdir())):
                part = "validation" if number % HELD_OUT == 0 else "training"
                link = folder / part / names.name / f"{domain.name}_{image.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(image.resolve())
    return folder / "training", folder / "validation"


if __name__ == "__main__":
    main()
