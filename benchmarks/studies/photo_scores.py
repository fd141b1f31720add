"""What re-distribution gains on real scores: two pretrained models on 500 ImageNet photos, clean and corrupted.

    python benchmarks/studies/photo_scores.py PHOTOS LITE0.pth LITE1.pth --work FOLDER

PHOTOS is a flat folder of ``WNID_name.JPEG`` files, one of each class. The models' probabilities are averaged; of the
1,000 columns the 500 whose classes occur are kept and scaled to sum 1 (N = C = 500), and beside them stand all 1,000
with at most one photo a class. The settings are the defaults, set before these scores were looked at; labels are used
for the figures alone. Predicted scores are kept in FOLDER, so that a second call only re-distributes. Writes
``benchmarks/results/photo_scores.json``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

RESULTS = Path(__file__).resolve().parents[1] / "results" / "photo_scores.json"
MODELS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1")
SETS = ("clean", "noise", "blur")
NOISE_SIGMA, BLUR_RADIUS = 60.0, 4.0
SEED = 0
BATCH = 50
WRONG_PRIORS = (0.1, 0.3)
PRIOR_SEEDS = 5


# --- scores ---------------------------------------------------------------------------------------------------------


def labelled(photos: Path) -> list[tuple[Path, str]]:
    """Each photo with its WordNet id, which its file name begins with."""
    return [(path, path.name.split("_")[0]) for path in sorted(photos.glob("*.JPEG"))]


def corrupted(image: Image.Image, how: str, row: int) -> Image.Image:
    """An evaluation crop under a corruption; the noise is a function of the seed and the photo's row."""
    if how == "blur":
        return image.filter(ImageFilter.GaussianBlur(BLUR_RADIUS))
    if how == "noise":
        noise = np.random.default_rng((SEED, row)).normal(0, NOISE_SIGMA, (*image.size[::-1], 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).round().astype(np.uint8))
    return image


def predicted(photos: list[Path], weights: Path, model_name: str, how: str) -> np.ndarray:
    """(N, 1000) float32 logits through timm's eval transform, the corruption applied to the crop's 8-bit pixels."""
    import timm
    import torch
    from timm.data import create_transform

    model = timm.create_model(model_name).eval()
    source = torch.load(weights, map_location="cpu", weights_only=True)
    names = [key for key in model.state_dict() if not key.endswith("num_batches_tracked")]
    values = [value for key, value in source.items() if not key.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    config = timm.data.resolve_data_config({}, model=timm.create_model(MODELS[0]))  # 224 pixels for both
    *to_crop, to_tensor, normalise = create_transform(**config).transforms
    logits = np.empty((len(photos), 1000), np.float32)
    with torch.inference_mode():
        for start in range(0, len(photos), BATCH):
            images = []
            for row, path in enumerate(photos[start : start + BATCH], start):
                image = Image.open(path).convert("RGB")
                for step in to_crop:
                    image = step(image)
                images.append(normalise(to_tensor(corrupted(image, how, row))))
            logits[start : start + BATCH] = model(torch.stack(images)).numpy()
    return logits


def scores_of(photos: list[Path], weights: list[Path], how: str, work: Path) -> list[np.ndarray]:
    """Logits of each model on a set, from `work` where they are there already."""
    found = []
    for model_name, file in zip(MODELS, weights, strict=True):
        kept = work / f"{model_name}_{how}.npy"
        if not kept.exists():
            np.save(kept, predicted(photos, file, model_name, how))
        found.append(np.load(kept))
    return found


# --- labels ---------------------------------------------------------------------------------------------------------


def mean_probs(logits: list[np.ndarray]) -> np.ndarray:
    """(N, C) float64 mean of the models' softmax."""
    parts = []
    for values in logits:
        plan = np.exp(values.astype(np.float64) - values.max(1, keepdims=True))
        parts.append(plan / plan.sum(1, keepdims=True))
    return np.mean(parts, axis=0)


def table_of(probs: np.ndarray, labels: np.ndarray, classes: list[str]) -> Any:
    """A score table of log-probabilities."""
    from fasttrain.scores.table import ScoreTable

    ids = [str(row) for row in range(len(probs))]
    scores = np.log(np.maximum(probs, 1e-30)).astype(np.float32)
    return ScoreTable(ids, np.minimum(scores, 0), classes, "log_probs", labels=labels)


def figures_of(table: Any, probs: np.ndarray, settings: dict[str, Any]) -> dict[str, Any]:
    """Top-1 of each method on a set; `settings` are those of the marginals, if not the defaults."""
    from fasttrain.scores.redistribution.greedy_k import greedy_k, greedy_k_corrected
    from fasttrain.scores.redistribution.redistribute import RedistributeSettings, redistribute

    def ours(**more: Any) -> float:
        _, report = redistribute(table, RedistributeSettings(**settings, **more))
        assert report["converged"], report
        return report["top1_after"]

    return {
        "argmax": table.accuracy(table.argmax()),
        "greedy-k as published, K 1": table.accuracy(greedy_k(probs, 1)),
        "greedy-k corrected, K 1": table.accuracy(greedy_k_corrected(probs, 1)),
        "sinkhorn": ours(),
        "sinkhorn, greedy": ours(round="greedy", **_whole(settings)),
        "sinkhorn, exact": ours(round="exact", **_whole(settings)),
    }


def _whole(settings: dict[str, Any]) -> dict[str, Any]:
    """One photo a class lies within no narrower whole bounds than these."""
    return {} if settings else {"equality": True}


def wrong_priors(table: Any, by: float) -> list[dict[str, float]]:
    """Top-1 by the defaults where each class's share is wrong by ``+by`` or ``-by`` of itself, several seeds."""
    from fasttrain.scores.redistribution.redistribute import RedistributeSettings, redistribute

    rows = []
    for seed in range(PRIOR_SEEDS):
        factors = 1 + by * np.random.default_rng((SEED, seed)).choice([-1.0, 1.0], len(table.classes))
        counts = dict(zip(table.classes, factors.tolist(), strict=True))
        _, report = redistribute(table, RedistributeSettings(), counts=counts)
        rows.append({"seed": seed, "top1": report["top1_after"], "converged": report["converged"]})
    return rows


def measured(photos: list[tuple[Path, str]], weights: list[Path], work: Path) -> dict[str, Any]:
    """All figures, by set."""
    from timm.data import ImageNetInfo

    wnids = ImageNetInfo().label_names()
    column = {name: number for number, name in enumerate(wnids)}
    own = np.array([column[wnid] for _, wnid in photos])
    kept = np.sort(own)
    labels_kept = np.searchsorted(kept, own).astype(np.int32)
    results = {}
    for how in SETS:
        every = mean_probs(scores_of([path for path, _ in photos], weights, how, work))
        some = every[:, kept] / every[:, kept].sum(1, keepdims=True)
        table = table_of(some, labels_kept, [wnids[number] for number in kept])
        wide = table_of(every, own.astype(np.int32), list(wnids))
        wrong = {f"{by:.0%}": wrong_priors(table, by) for by in WRONG_PRIORS}
        results[how] = {
            "500 classes": figures_of(table, some, {}),
            "1000 classes, at most 1 photo each": figures_of(wide, every, {"lower": "0", "upper": "1"}),
            "500 classes, sinkhorn, prior wrong by": wrong,
        }
    return results


def main() -> None:
    """Predict what is not there yet, re-distribute, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("weights", type=Path, nargs=2)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    photos = labelled(arguments.photos)
    results = {"samples": len(photos), "sets": measured(photos, arguments.weights, arguments.work)}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
