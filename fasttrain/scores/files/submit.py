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
    names: Literal["id", "file"] | str = "id",
    indent: int | None = None,
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
        names: how samples are called: by their ``id``, or by the ``file`` that it ends in, without folders.
        indent: blanks that a line of json begins with, one for each sample; None for all in one line.

    Returns:
        {samples, out, use}.

    Raises:
        ScoresError: there is no such format, or several samples would be called alike.
    """
    label_as = label_as or ("name" if file_format == "csv" else "index")
    if file_format not in ("csv", "json") or label_as not in ("name", "index"):
        raise ScoresError("a submission is of format csv or json, with labels as name or index")
    if indent is not None and file_format != "json":
        raise ScoresError("an indent belongs to format json; leave it out")
    called = table.ids if names == "id" else _file_names(table.ids)
    labels = table.predictions(use).tolist()
    shown = labels if label_as == "index" else [table.classes[label] for label in labels]
    if file_format == "json":
        text = json.dumps(dict(zip(called, shown, strict=True)), indent=indent)
    else:
        text = _csv(list(zip(called, shown, strict=True)), columns if header else None)
    out = Path(out)
    if zipped and out.suffix != ".zip":
        out = out.with_name(out.name + ".zip")
    write_text(out, text, inner_suffix=f".{file_format}")
    used = use or ("assigned" if table.assigned is not None else "argmax")
    return {"samples": len(table), "out": str(out), "use": used}


def _file_names(ids: Sequence[str]) -> list[str]:
    """What follows the last ``/`` of each id."""
    names = [sample_id.rpartition("/")[2] for sample_id in ids]
    if len(set(names)) < len(names):
        owner: dict[str, str] = {}
        for sample_id, name in zip(ids, names, strict=True):
            if owner.setdefault(name, sample_id) != sample_id:
                raise ScoresError(
                    f"the samples {owner[name]!r} and {sample_id!r} have the same file name, so it cannot stand for "
                    "them; leave --names file out"
                )
    return names


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
