"""Scores of other programs in: CSV, NumPy files, and the pickles that competition code leaves behind."""

import gzip
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fasttrain.base.errors import ScoresError
from fasttrain.scores.files.label_files import class_numbers, read_labels
from fasttrain.scores.files.safe_pickle import load_pickle
from fasttrain.scores.table import Kind, ScoreTable, refuse_duplicates

ID_COLUMNS = ("id", "ids", "imgs", "img", "image", "image_id", "name", "filename", "file", "path")
# Columns that may stand between the id and the scores: true labels, and predictions (which the scores say anyway).
LABEL_COLUMNS = ("label", "labels", "target")
OTHER_COLUMNS = (*LABEL_COLUMNS, "pred", "prediction", "pred_label", "pred_class")
SCORE_KEYS = ("scores", "pred_scores", "logits", "probs", "score", "pred_score")
NAME_KEYS = ("filename", "name", "img", "img_path", "id")


@dataclass
class _Raw:
    ids: list[str]
    scores: np.ndarray
    classes: list[str] | None = None
    labels: list[str] | None = None  # class names or indices, "" or "-1" where unknown


def import_scores(
    source: str | Path,
    kind: Kind,
    *,
    classes: str | Path | None = None,
    labels: str | Path | None = None,
    ids: str | Path | None = None,
    val_top1: float | None = None,
) -> ScoreTable:
    """Read a file of scores, kept as float32.

    * ``.csv``, ``.csv.gz``: a header, an id column, perhaps a true label (``label``, ``labels``, ``target``) or a
      prediction, then one column a class.
    * ``.npy``, ``.npz`` (array ``scores`` or the only one; ids from its array ``ids`` or from `ids`; where they are
      there, class names from ``classes`` and true labels from ``labels``).
    * ``.pkl``, ``.pickle``: a mapping of ids to scores, a list of tuples (id, …, scores) or of mappings with both, or a
      mapping with ``ids`` and a matrix ``scores``. Read without running code: NumPy arrays and plain containers are all
      that is allowed.

    Args:
        source: the file.
        kind: what the scores are.
        classes: file of class names, one a line; by default the CSV's header, or 0, 1, …. A header that holds the same
            names in another order is obeyed: the columns are put into the order of the file.
        labels: CSV file with header ``id,label`` of true labels, by name or by index; instead of any in `source`.
        ids: text file of ids, one a line, for NumPy files without them.
        val_top1: the model's top-1 (0–1) on its validation set, for `ensemble` with weights ``accuracy``.
    """
    if val_top1 is not None and not 0 < val_top1 <= 1:
        raise ScoresError(f"a validation top-1 is a share above 0 and at most 1, not {val_top1}")
    path = Path(source)
    if not path.is_file():
        raise ScoresError(f"{path}: no such file")
    raw = _read(path, ids)
    if classes is not None:
        _rename(raw, read_lines(classes), path, classes)
    names = raw.classes or [str(column) for column in range(raw.scores.shape[1])]
    if len(names) != raw.scores.shape[1]:
        raise ScoresError(f"{classes or path} names {len(names)} classes, {path} has {raw.scores.shape[1]} of scores")
    meta: dict[str, Any] = {"imported_from": path.name}
    if val_top1 is not None:
        meta["validation"] = {"val_top1": val_top1}
    table = ScoreTable(raw.ids, raw.scores, names, kind, meta=meta)
    if labels is not None:
        table.labels = read_labels(labels, raw.ids, names)
    elif raw.labels is not None:
        table.labels = class_numbers(raw.labels, names, path, raw.ids).astype(np.int32)
    return table


def _rename(raw: _Raw, names: list[str], path: Path, where: str | Path) -> None:
    """Give the columns the names of a file; never under a name that the header says belongs to another column."""
    header = raw.classes or []
    if header and header != names and set(header) & set(names):
        if sorted(header) != sorted(names):
            odd = next(name for name in header if name not in names)
            raise ScoresError(f"the header of {path} shares some classes with {where} but not {odd!r}; make them agree")
        raw.scores = raw.scores[:, [header.index(name) for name in names]]
    raw.classes = names


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text file, empty ones left out."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ScoresError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ScoresError(f"{path} is not UTF-8 text") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read(path: Path, ids: str | Path | None) -> _Raw:
    suffixes = path.name.lower().split(".")[1:]
    if "csv" in suffixes:
        return _read_csv(path)
    if suffixes and suffixes[-1] in ("npy", "npz"):
        return _read_numpy(path, ids)
    if "pkl" in suffixes or "pickle" in suffixes:
        return _read_pickle(path)
    raise ScoresError(f"{path} is of no known kind; scores are imported from .csv, .csv.gz, .npy, .npz and .pkl")


def _read_csv(path: Path) -> _Raw:
    try:
        # Ids such as "0001" must stay as they are, so the first column is read as text.
        with pa.csv.open_csv(path) as head:
            columns = head.schema.names
        first = next((i for i, name in enumerate(columns) if i and name.lower() not in OTHER_COLUMNS), len(columns))
        texts = dict.fromkeys(columns[:first], pa.string())
        options = pa.csv.ConvertOptions(column_types=texts)
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise ScoresError(f"{path} cannot be read as CSV: {error}") from None
    if columns[0].lower() not in ID_COLUMNS:
        raise ScoresError(
            f"{path}: the first column must be the id ({', '.join(ID_COLUMNS[:4])}, …), not {columns[0]!r}"
        )
    names = columns[first:]  # a class may well be called "target"; before the scores it is not a class
    refuse_duplicates(columns, f"the header of {path}")
    for name in names:
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise ScoresError(f"{path}: the score of {table[columns[0]][row].as_py()!r} in column {name!r} is missing")
        if not (pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type)):
            raise ScoresError(f"{path}: column {name!r} does not hold numbers")
    if not names:
        raise ScoresError(f"{path} has no column of scores")
    scores = np.stack([table[name].to_numpy().astype(np.float32) for name in names], 1)
    true = next((name for name in columns[1:first] if name.lower() in LABEL_COLUMNS), None)
    return _Raw(table[columns[0]].to_pylist(), scores, names, table[true].to_pylist() if true else None)


def _read_numpy(path: Path, ids: str | Path | None) -> _Raw:
    try:
        content = np.load(path, allow_pickle=False)
        arrays = {"scores": content} if isinstance(content, np.ndarray) else {n: content[n] for n in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ScoresError(f"{path} cannot be read: {error}") from None
    lists = {name: arrays.pop(name).tolist() for name in ("ids", "classes", "labels") if name in arrays}
    if "scores" not in arrays and len(arrays) != 1:
        raise ScoresError(f"{path} holds the arrays {', '.join(arrays)}; name the one of scores 'scores'")
    scores = arrays.get("scores", next(iter(arrays.values())))
    if ids is not None:
        lists["ids"] = read_lines(ids)
    if "ids" not in lists:
        raise ScoresError(f"{path} holds no ids; name a text file of them, one a line (--ids)")
    texts = {name: [str(value) for value in np.ravel(values)] for name, values in lists.items()}
    return _Raw(texts["ids"], _matrix(scores, path), texts.get("classes"), texts.get("labels"))


def _read_pickle(path: Path) -> _Raw:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = load_pickle(file)
    except ScoresError as error:
        raise ScoresError(f"{path} cannot be imported: {error}") from None
    if isinstance(content, dict) and np.ndim(content.get("scores", 0)) == 2 and "ids" in content:
        return _Raw([str(name) for name in content["ids"]], _matrix(content["scores"], path))
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list | tuple):
        pairs = [_pair(entry, path) for entry in content]
    else:
        raise ScoresError(f"{path} holds a {type(content).__name__}; a mapping of ids to scores is wanted")
    if not pairs:
        raise ScoresError(f"{path} holds no scores")
    return _Raw([str(name) for name, _ in pairs], _matrix([scores for _, scores in pairs], path))


def _pair(entry: Any, path: Path) -> tuple[str, Any]:
    """Id and scores of one entry of a list; single numbers beside them (``pred_score``) are not the scores."""
    if isinstance(entry, dict):
        name = next((entry[key] for key in NAME_KEYS if key in entry), None)
        vectors = [entry[key] for key in SCORE_KEYS if key in entry and isinstance(entry[key], np.ndarray | list)]
    elif isinstance(entry, list | tuple) and entry:
        name, vectors = entry[0], [part for part in entry[1:] if isinstance(part, np.ndarray | list)]
    else:
        name, vectors = None, []
    if name is None or not vectors:
        raise ScoresError(
            f"{path} holds entries that are neither (id, …, scores) nor mappings with one of {', '.join(NAME_KEYS)} "
            f"and one of {', '.join(SCORE_KEYS)}"
        )
    return str(name), vectors[0]


def _matrix(scores: Any, path: Path) -> np.ndarray:
    try:
        matrix = np.asarray(scores, np.float32)
    except (ValueError, TypeError):
        raise ScoresError(
            f"{path}: the samples have different numbers of scores, or scores that are no numbers"
        ) from None
    if matrix.ndim != 2:
        raise ScoresError(f"{path}: scores must be a matrix of samples and classes, not of shape {matrix.shape}")
    return matrix
