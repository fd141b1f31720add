"""Zero-shot top-1 of `fasttrain evaluate` beside timm's own eval transform, on the same photos and weights.

    python benchmarks/studies/imagenet_zero_shot.py PHOTOS WEIGHTS.pth

PHOTOS is a flat folder of ``WNID_name.JPEG`` files. Writes ``benchmarks/results/imagenet_zero_shot.json``.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, create_transform

RESULTS = Path(__file__).resolve().parents[1] / "results" / "imagenet_zero_shot.json"
MODEL = "tf_efficientnet_lite0"


def labelled(photos: Path) -> list[tuple[Path, str]]:
    """Each photo with its WordNet id, which its file name begins with."""
    return [(path, path.name.split("_")[0]) for path in sorted(photos.glob("*.JPEG"))]


@torch.inference_mode()
def timm_top1(photos: list[tuple[Path, str]], weights: Path) -> float:
    """Photo by photo through timm's eval transform."""
    model = timm.create_model(MODEL).eval()
    source = torch.load(weights, map_location="cpu", weights_only=True)
    names = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    values = [value for key, value in source.items() if not key.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    transform = create_transform(**timm.data.resolve_data_config({}, model=model))
    wnids = ImageNetInfo().label_names()
    hits = 0
    for path, wnid in photos:
        image = transform(Image.open(path).convert("RGB"))
        hits += wnids[int(model(image[None]).argmax())] == wnid
    return hits / len(photos)


def fasttrain_figures(photos: list[tuple[Path, str]], weights: Path, folder: Path) -> dict[str, dict]:
    """Through the command line and with each backend: a CSV of labels, a beton that keeps the JPEG bytes, `evaluate`
    on bare weights."""
    table = folder / "photos.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([str(path.resolve()), wnid] for path, wnid in photos)

    def fasttrain(*arguments: str) -> dict:
        command = [sys.executable, "-m", "fasttrain.cli.app", *arguments, "--json"]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    fasttrain("build", str(table), str(folder / "photos.beton"))
    evaluate = ("evaluate", str(weights), str(folder / "photos.beton"), "--model", MODEL, "--weights-match", "order")
    return {backend: fasttrain(*evaluate, "--backend", backend) for backend in ("portable", "native")}


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("weights", type=Path)
    arguments = parser.parse_args()
    photos = labelled(arguments.photos)
    with tempfile.TemporaryDirectory() as folder:
        ours = fasttrain_figures(photos, arguments.weights, Path(folder))
    results = {"samples": len(photos), "fasttrain": ours, "timm_top1": timm_top1(photos, arguments.weights)}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
