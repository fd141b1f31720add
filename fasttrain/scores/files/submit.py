"""A submission file from a score table."""

import csv
import gzip
import io
import json
import zipfile
from collections.abc import Sequence
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
    label_as: Literal["name", "index"] | str | None = None,
    header: bool = True,
    columns: tuple[str, str] = ("id", "label"),
    zipped: bool = False,
) -> dict[str, Any]:
    """Write one label a sample.

    Args:
        table: scores, re-distributed or not.
        out: the file; one ending in ``.zip`` is an archive that holds the submission under the name without ``.zip``.
        file_format: ``csv`` (``id,label``), or ``json`` (``{id: label}``).
        use: ``argmax`` or ``assigned``; by default the latter where it is there.
        label_as: class ``name`` or ``index``; by default the name in csv, the index in json.
        header: whether the csv has a header line.
        columns: what it names them.
        zipped: add ``.zip`` to `out` where it is not there yet.

    Returns:
        {samples, out, use}.
    """
    label_as = label_as or ("name" if file_format == "csv" else "index")
    if file_format not in ("csv", "json") or label_as not in ("name", "index"):
        raise ScoresError("a submission is of format csv or json, with labels as name or index")
    labels = table.predictions(use).tolist()
    shown = labels if label_as == "index" else [table.classes[label] for label in labels]
    if file_format == "json":
        text = json.dumps(dict(zip(table.ids, shown, strict=True)))
    else:
        text = _csv(list(zip(table.ids, shown, strict=True)), columns if header else None)
    out = Path(out)
    if zipped and out.suffix != ".zip":
        out = out.with_name(out.name + ".zip")
    write_text(out, text, inner_suffix=f".{file_format}")
    used = use or ("assigned" if table.assigned is not None else "argmax")
    return {"samples": len(table), "out": str(out), "use": used}


def _csv(rows: list[tuple[str, Any]], header: Sequence[str] | None) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    if header is not None:
        writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def write_text(out: Path, text: str, inner_suffix: str = "") -> None:
    """Write a text file atomically, compressed if its name ends in ``.zip`` or ``.gz``; equal texts give equal bytes.

    Args:
        out: the file.
        text: its contents.
        inner_suffix: for the file in an archive whose name says no more than ``.zip``.
    """
    if out.suffix == ".zip":
        name = out.stem if Path(out.stem).suffix else out.stem + inner_suffix
        # Without a date of its own the archive would carry the time of day.
        entry = zipfile.ZipInfo(name)
        with atomic_open(out, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)
    elif out.suffix == ".gz":
        with atomic_open(out, "wb") as file:
            file.write(gzip.compress(text.encode(), mtime=0))
    else:
        with atomic_open(out, newline="") as file:
            file.write(text)
