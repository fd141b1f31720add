"""How much a frozen encoder's features tell of the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fasttrain.base.distributed import require_agreement
from fasttrain.inference.features import features_of
from fasttrain.inference.forward import Amp
from fasttrain.inference.knn import knn_accuracy
from fasttrain.inference.linear_probe import L2, linear_accuracy
from fasttrain.inference.skipped import report_skipped
from fasttrain.loading.loader import Loader
from fasttrain.models.opened import OpenedModel


def probe(
    encoder: OpenedModel,
    train: str | Path,
    test: str | Path,
    *,
    knn: bool = True,
    linear: bool = True,
    k: int = 20,
    temperature: float = 0.07,
    l2: float = L2,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    amp: Amp = "off",
    ids: Sequence[str] | None = None,
    **loading: Any,
) -> dict[str, Any]:
    """Tell the classes of `test` by the features of `train`, both in the encoder's eval view.

    Args:
        encoder: as `fasttrain.models.encoder.open_encoder` gives it.
        knn, linear: which ways to take (see `knn_votes` and `fit_linear`).
        k, temperature: of the neighbours.
        l2: of the linear classifier.
        ids: only these samples of `train`.
        loading: of the `Loader`.

    Returns:
        {samples, train_samples, features} and {knn_top1, knn_top5}, {linear_top1, linear_top5} as asked for; `skipped`
        where images could not be decoded.
    """
    how: dict[str, Any] = {"view": encoder.view, "device": device, **loading}
    with Loader(train, batch_size, indices=ids, **how) as known:
        classes, names = known.num_classes, known.class_names
        bank = features_of(encoder.module, known, amp, label="features of the training data")
        with Loader(test, batch_size, **how) as unknown:
            prints = {"data sets": (known.dataset.fingerprint, unknown.dataset.fingerprint)}
            require_agreement({**prints, "checkpoint": encoder.weights_hash})
            asked = features_of(encoder.module, unknown, amp, names, classes, "features of the test data")
            skipped = report_skipped([*known.skipped, *unknown.skipped])
    result: dict[str, Any] = {"samples": len(asked.labels), "train_samples": len(bank.labels)}
    result["features"] = bank.values.shape[1]
    if knn:
        result |= knn_accuracy(bank, asked, classes, k=k, temperature=temperature)
    if linear:
        result |= linear_accuracy(bank, asked, classes, l2)
    return {**result, "skipped": skipped} if skipped else result
