"""A submission file from a score table."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any, Literal

from fasttrain.base.atomic import atomic_open
from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import ScoreTable


def write_submission(
    table: ScoreTable,
    out: str | Path,
    *,
    file_format: Literal["csv", "json"] | str = "csv",
    use: str | None = None,
    label_as: Literal["name", "index"] | str = "name",
    header: bool = True,
) -> dict[str, Any]:
    """Write one label a sample.

    Args:
        table: scores, re-distributed or not.
        out: the file; one ending in ``.zip`` holds the submission under the name without ``.zip``.
        file_format: ``csv`` (``id,label``), or ``json`` (``{id: index}``).
        use: ``argmax`` or ``assigned``; by default the latter where it is there.
        label_as: class ``name`` or ``index``, for csv.
        header: whether the csv has a header line.

    Returns:
        {samples, out, use}.
    """
    if file_format not in ("csv", "json") or label_as not in ("name", "index"):
        raise ScoresError("a submission is of format csv or json, with labels as name or index")
    labels = table.predictions(use).tolist()
    if file_format == "json":
        text = json.dumps(dict(zip(table.ids, labels, strict=True)))
    else:
        shown = labels if label_as == "index" else [table.classes[label] for label in labels]
        text = _csv(list(zip(table.ids, shown, strict=True)), header)
    write_text(Path(out), text)
    used = use or ("assigned" if table.assigned is not None else "argmax")
    return {"samples": len(table), "out": str(out), "use": used}


def _csv(rows: list[tuple[str, Any]], header: bool) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(["id", "label"])
    writer.writerows(rows)
    return buffer.getvalue()


def write_text(out: Path, text: str) -> None:
    """Write a text file atomically; zipped if its name says so."""
    if out.suffix != ".zip":
        with atomic_open(out, newline="") as file:
            file.write(text)
        return
    with atomic_open(out, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(out.stem, text)
