"""Score tables for tests: several models of one set of samples, and plain references."""

from pathlib import Path

import numpy as np

from fasttrain.scores.table import ScoreTable

CLASSES = ["a", "b", "c", "d"]


def softmax(values: np.ndarray) -> np.ndarray:
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def models(
    strengths: tuple[float, ...], *, rows: int = 300, seed: int = 0, prefix: str = "v", labelled: bool = True
) -> list[ScoreTable]:
    """Tables of logits; the larger a strength, the better the model."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(CLASSES), rows).astype(np.int32)
    tables = []
    for number, strength in enumerate(strengths):
        scores = generator.normal(size=(rows, len(CLASSES)))
        scores[np.arange(rows), labels] += strength
        known = labels if labelled else np.full(rows, -1, np.int32)
        meta = {"model": f"m{number}", "data_fingerprint": prefix}
        ids = [f"{prefix}{row}" for row in range(rows)]
        tables.append(ScoreTable(ids, scores.astype(np.float32), CLASSES, "logits", known, meta=meta))
    return tables


def written(tables: list[ScoreTable], folder: Path, stem: str) -> list[Path]:
    paths = [folder / f"{stem}{number}.arrow" for number in range(len(tables))]
    for table, path in zip(tables, paths, strict=True):
        table.write(path)
    return paths
