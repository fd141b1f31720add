"""The part of a data set that a loader was asked for."""

from collections.abc import Sequence

import numpy as np

from fasttrain.base.errors import LoaderError
from fasttrain.loading.dataset import ImageDataset


def select_rows(dataset: ImageDataset, indices: Sequence[int] | Sequence[str] | np.ndarray | None) -> np.ndarray:
    """Rows (n,) int64 of the data set that `indices` (rows or string ids) name; all rows if None.

    Raises:
        LoaderError: one is unknown, ambiguous, out of range or listed twice; or there are no samples at all.
    """
    if not dataset.num_samples:
        raise LoaderError(f"{dataset.name} holds no samples")
    everything = np.arange(dataset.num_samples, dtype=np.int64)
    if indices is None:
        return everything
    wanted = np.asarray(indices)
    if not len(wanted):
        raise LoaderError(f"indices name no sample of {dataset.name}")
    if wanted.dtype.kind in "UO":
        rows = _rows_of_ids(dataset, [str(name) for name in indices], everything)
    elif wanted.dtype.kind in "iu":
        rows = wanted.astype(np.int64)
    else:
        raise LoaderError(f"indices must be rows (integers) or string ids, not of type {wanted.dtype}")
    if rows.min() < 0 or rows.max() >= dataset.num_samples:
        raise LoaderError(f"indices must be rows 0 to {dataset.num_samples - 1} of {dataset.name}")
    if len(np.unique(rows)) != len(rows):
        raise LoaderError("indices name a sample twice; every sample may be listed once")
    return rows


def _rows_of_ids(dataset: ImageDataset, names: list[str], everything: np.ndarray) -> np.ndarray:
    wanted = set(names)
    position: dict[str, int] = {}
    for row, name in enumerate(dataset.string_ids(everything)):
        if name not in wanted:
            continue
        if name in position:
            raise LoaderError(f"{dataset.name} has several samples {name!r}; name them by their rows")
        position[name] = row
    unknown = [name for name in names if name not in position]
    if unknown:
        raise LoaderError(f"{dataset.name} has no sample {unknown[0]!r} ({len(unknown)} such)")
    return np.array([position[name] for name in names], np.int64)
