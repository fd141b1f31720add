"""Predict a data set into a score table."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fasttrain.base.distributed import gather_on_main, require_agreement
from fasttrain.base.errors import ConfigError, ScoresError
from fasttrain.inference.forward import Amp, forward_batches, refusal
from fasttrain.inference.labels import class_map
from fasttrain.inference.skipped import report_skipped
from fasttrain.inference.tta import test_time_views
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import EvalView
from fasttrain.models.opened import OpenedModel
from fasttrain.scores.table import ScoreTable


def predict(
    opened: OpenedModel,
    data: str | Path,
    out: str | Path,
    *,
    tta: str = "none",
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    amp: Amp = "off",
    threads: int | None = None,
    backend: str = "auto",
    index: bool = True,
    on_error: str = "raise",
    ids: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Run a model over a data set and write its logits as a score table.

    Each sample is predicted once over all ranks; the main one writes the table, in the data set's order. Samples that
    could not be decoded under ``on_error="skip"`` are left out of the table and named.

    Args:
        opened: model, view and class names.
        data: a `.beton` file, a folder or a list.
        out: the Arrow file to write.
        ids: predict only these samples.
        tta: test-time views whose logits are averaged (`test_time_views`).
        threads, backend, index, on_error: of the `Loader`.

    Returns:
        {samples, out, images_per_s, skipped}; images_per_s counts every view of an image.

    Raises:
        ConfigError: `tta` shows images of a size that the model does not take.
    """
    views = test_time_views(opened.view, tta, opened.patch)
    modules = _by_size(opened, views, tta, device, amp)
    started = time.monotonic()
    total: np.ndarray | None = None
    rows = np.empty(0, np.int64)
    failed: list[tuple[str, str]] = []
    for number, view in enumerate(views):
        label = "predict" if len(views) == 1 else f"predict view {number + 1}/{len(views)}"
        how: dict[str, Any] = {"threads": threads, "backend": backend, "index": index, "on_error": on_error}
        with Loader(data, batch_size, view=view, indices=ids, device=device, **how) as loader:
            if number == 0:
                require_agreement({"data set": loader.dataset.fingerprint, "checkpoint": opened.weights_hash})
            seen, logits = _one_view(modules[view.size], opened.num_classes, loader, amp, label)
            if total is None:
                rows, total = seen, logits
            else:  # damage that one view shows may lie outside of another one
                in_both = np.isin(rows, seen)
                rows, total = rows[in_both], total[in_both] + logits[np.isin(seen, rows)]
            failed += loader.skipped
            if number == len(views) - 1:
                gathered = gather_on_main((rows, total / len(views)))
                skipped = report_skipped(failed)
                seconds = time.monotonic() - started
                if gathered is None:
                    return {"samples": 0, "out": str(out), "images_per_s": 0.0, "skipped": []}
                samples = _write(opened, loader, gathered, Path(out), tta)
                speed = samples * len(views) / seconds
                return {"samples": samples, "out": str(out), "images_per_s": speed, "skipped": skipped}
    raise AssertionError("there is always at least one view")


def _by_size(
    opened: OpenedModel, views: list[EvalView], tta: str, device: torch.device | str, amp: Amp
) -> dict[int, nn.Module]:
    """The model for each size of image that the views show it; other sizes than its own are tried before decoding."""
    modules = {view.size: opened.at_size(view.size) for view in views}
    for size in sorted(modules.keys() - {opened.view.size}):
        reason = refusal(modules[size], torch.zeros(1, 3, size, size, device=device), amp)
        if reason is not None:
            raise ConfigError(
                f"--tta {tta} shows images of {size} pixels, and {opened.name} does not take them ({reason}); "
                "choose other test-time views"
            )
    return modules


def _one_view(
    module: nn.Module, num_classes: int, loader: Loader, amp: Amp, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows int64 (n,) and logits float32 (n, C) of this rank's valid samples."""
    rows, scores = [], []
    for batch, logits in forward_batches(module, loader, amp, label):
        rows.append(batch.ids[batch.valid].cpu())
        scores.append(logits[batch.valid].cpu())
    if not rows:
        return np.empty(0, np.int64), np.empty((0, num_classes), np.float32)
    return torch.cat(rows).numpy(), torch.cat(scores).numpy()


def _write(
    opened: OpenedModel,
    loader: Loader,
    gathered: list[tuple[np.ndarray, np.ndarray]],
    out: Path,
    tta: str,
) -> int:
    """Join what the ranks predicted and write it; the number of samples."""
    rows = np.concatenate([part[0] for part in gathered])
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    scores = np.concatenate([part[1] for part in gathered])[order]
    if not len(rows):
        raise ScoresError(f"no image of {loader.dataset.name} could be decoded, so there is nothing to predict")
    names = _output_names(opened)
    table = ScoreTable(
        ids=loader.string_ids(rows),
        scores=scores,
        classes=names,
        kind="logits",
        labels=_labels(opened, loader, rows),
        meta={
            "model": opened.name,
            "checkpoint_hash": opened.weights_hash,
            "data_fingerprint": loader.dataset.fingerprint,
            "validation": opened.metrics,
            "train_counts": opened.train_counts and dict(zip(names, opened.train_counts, strict=True)),
            "tta": tta,
            "eval_view": opened.view.model_dump(mode="json"),
        },
    )
    table.write(out)
    return len(rows)


def _output_names(opened: OpenedModel) -> list[str]:
    return opened.class_names or [str(index) for index in range(opened.num_classes)]


def _labels(opened: OpenedModel, loader: Loader, rows: np.ndarray) -> np.ndarray:
    """True labels int32 (n,) as outputs of the model, -1 where unknown."""
    labels = np.asarray(loader.dataset.labels)[rows]
    if not (labels >= 0).any():
        return labels.astype(np.int32)
    mapping = np.asarray(class_map(loader.class_names, opened.class_names, opened.num_classes))
    return np.where(labels >= 0, mapping[np.maximum(labels, 0)], -1).astype(np.int32)
