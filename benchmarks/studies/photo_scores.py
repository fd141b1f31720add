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
