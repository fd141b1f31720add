"""Score tables out, for other programs."""

import csv
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.submit import write_text
from fasttrain.scores.table import ScoreTable


def export_scores(table: ScoreTable, out: str | Path, *, header: bool = True) -> dict[str, Any]:
    """Write the scores in the format that the file's name says.

    * ``.csv``: ``id``, the class name in ``label`` where true labels are known, and one column a class, every digit
      kept.
    * ``.json``: ``{id: index of the highest score}``.
    * ``.npz``: arrays ``ids``, ``scores``, ``classes``, ``labels``.
    * ``.pkl``: a mapping of ids to float32 arrays.

    CSV and JSON are compressed where another ``.zip`` or ``.gz`` follows.

    Returns:
        {samples, out}.
    """
    path = Path(out)
    name = path.name.removesuffix(".zip").removesuffix(".gz")
    if name.endswith(".csv"):
        write_text(path, _csv(table, header))
    elif name.endswith(".json"):
        from fasttrain.scores.files.submit import write_submission

        write_submission(table, path, file_format="json", use="argmax")
    elif name.endswith(".npz"):
        with atomic_open(path, "wb") as file:
            ids, classes = np.array(table.ids), np.array(table.classes)
            np.savez(file, ids=ids, scores=table.scores, classes=classes, labels=table.labels)
    elif name.endswith(".pkl"):
        with atomic_open(path, "wb") as file:
            pickle.dump(dict(zip(table.ids, table.scores.astype(np.float32), strict=True)), file)
    else:
        raise ScoresError(f"{path} says no known format; export to .csv, .json, .npz or .pkl")
    return {"samples": len(table), "out": str(path)}


def _csv(table: ScoreTable, header: bool) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    labelled = header and bool((table.labels >= 0).any())  # without a header nobody could tell the column
    names = [*table.classes, ""]  # label -1 is the last: unknown
    if header:
        writer.writerow(["id", *(["label"] if labelled else []), *table.classes])
    for name, label, scores in zip(table.ids, table.labels, table.scores, strict=True):
        writer.writerow([name, *([names[label]] if labelled else []), *(str(score) for score in scores)])
    return buffer.getvalue()
