"""Scores of other programs in: CSV, NumPy files, and the pickles that competition code leaves behind."""

import gzip
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fasttrain.base.errors import ScoresError
from fasttrain.scores.table import Kind, ScoreTable, refuse_duplicates

ID_COLUMNS = ("id", "ids", "imgs", "img", "image", "image_id", "name", "filename", "file", "path")
# Columns that may stand between the id and the scores.
OTHER_COLUMNS = ("label", "labels", "target", "pred", "prediction", "pred_label", "pred_class")
SCORE_KEYS = ("pred_scores", "pred_score", "scores", "score", "logits", "probs")
NAME_KEYS = ("filename", "name", "img", "img_path", "id")


@dataclass
class _Raw:
    ids: list[str]
    scores: np.ndarray
    classes: list[str] | None = None


def import_scores(
    source: str | Path,
    kind: Kind,
    *,
    classes: str | Path | None = None,
    labels: str | Path | None = None,
    ids: str | Path | None = None,
) -> ScoreTable:
    """Read a file of scores, kept as float32.

    * ``.csv``, ``.csv.gz``: a header, an id column, perhaps a label or prediction column, then one column a class.
    * ``.npy``, ``.npz`` (array ``scores`` or the only one; ids from its array ``ids`` or from `ids`).
    * ``.pkl``, ``.pickle``: a mapping of ids to scores, a list of (id, scores) or of mappings with both. Read without
      running code: NumPy arrays and plain containers are all that is allowed.

    Args:
        source: the file.
        kind: what the scores are.
        classes: file of class names, one a line, in column order; by default the CSV's header, or 0, 1, ….
        labels: CSV file with header ``id,label`` of true labels, by name or by index.
        ids: text file of ids, one a line, for NumPy files without them.
    """
    path = Path(source)
    if not path.is_file():
        raise ScoresError(f"{path}: no such file")
    raw = _read(path, ids)
    names = read_lines(classes) if classes is not None else raw.classes
    names = names or [str(column) for column in range(raw.scores.shape[1])]
    if len(names) != raw.scores.shape[1]:
        raise ScoresError(f"{classes or path} names {len(names)} classes, {path} has {raw.scores.shape[1]} of scores")
    table = ScoreTable(raw.ids, raw.scores, names, kind, meta={"imported_from": path.name})
    if labels is not None:
        table.labels = read_labels(labels, raw.ids, names)
    return table


def read_lines(path: str | Path) -> list[str]:
    """Lines of a text file, empty ones left out."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ScoresError(f"{path} cannot be read: {error.strerror}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_labels(path: str | Path, ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """True labels (N,) int32 of `ids` from a CSV file ``id,label``; -1 for ids that it does not name."""
    try:
        strings = pa.csv.ConvertOptions(column_types={"id": pa.string(), "label": pa.string()})
        table = pa.csv.read_csv(path, convert_options=strings)
        names, values = table["id"].to_pylist(), table["label"].to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ScoresError(f"labels {path} must be a CSV file with the header id,label ({error})") from None
    refuse_duplicates(names, f"labels {path}")
    position = {name: index for index, name in enumerate(classes)}
    if any(value not in position for value in values):
        # Not names: then all must be indices.
        position = {str(index): index for index in range(len(classes))}
    unknown = [value for value in values if value not in position]
    if unknown:
        raise ScoresError(f"labels {path}: {unknown[0]!r} is neither a class name nor an index below {len(classes)}")
    known = {name: position[value] for name, value in zip(names, values, strict=True)}
    labels = np.array([known.get(name, -1) for name in ids], np.int32)
    if (labels < 0).all():
        raise ScoresError(f"labels {path} names none of the samples of the scores ({ids[0]!r}, …)")
    return labels


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
        options = pa.csv.ConvertOptions(column_types={columns[0]: pa.string()})
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, OSError) as error:
        raise ScoresError(f"{path} cannot be read as CSV: {error}") from None
    if columns[0].lower() not in ID_COLUMNS:
        raise ScoresError(
            f"{path}: the first column must be the id ({', '.join(ID_COLUMNS[:4])}, …), not {columns[0]!r}"
        )
    names = [name for name in columns[1:] if name.lower() not in OTHER_COLUMNS]
    refuse_duplicates(names, f"the header of {path}")
    for name in names:
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise ScoresError(f"{path}: the score of {table[columns[0]][row].as_py()!r} in column {name!r} is missing")
        if not (pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type)):
            raise ScoresError(f"{path}: column {name!r} does not hold numbers")
    scores = np.stack([table[name].to_numpy().astype(np.float32) for name in names], 1) if names else np.empty((0, 0))
    return _Raw(table[columns[0]].to_pylist(), scores, names)


def _read_numpy(path: Path, ids: str | Path | None) -> _Raw:
    try:
        content = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ScoresError(f"{path} cannot be read: {error}") from None
    names: list[str] | None = None
    if isinstance(content, np.ndarray):
        scores = content
    else:
        arrays = {name: content[name] for name in content.files}
        if "ids" in arrays:
            names = [str(name) for name in arrays.pop("ids")]
        if "scores" not in arrays and len(arrays) != 1:
            raise ScoresError(f"{path} holds the arrays {', '.join(arrays)}; name the one of scores 'scores'")
        scores = arrays.get("scores", next(iter(arrays.values())))
    if ids is not None:
        names = read_lines(ids)
    if names is None:
        raise ScoresError(f"{path} holds no ids; name a text file of them, one a line (--ids)")
    return _Raw(names, _matrix(scores, path))


def _read_pickle(path: Path) -> _Raw:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = _DataUnpickler(file).load()
    except ScoresError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ScoresError(f"{path} cannot be read as a pickle: {error}") from None
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
    if isinstance(entry, dict):
        name = next((entry[key] for key in NAME_KEYS if key in entry), None)
        scores = next((entry[key] for key in SCORE_KEYS if key in entry), None)
        if name is not None and scores is not None:
            return str(name), scores
    elif isinstance(entry, list | tuple) and len(entry) == 2:
        return str(entry[0]), entry[1]
    raise ScoresError(
        f"{path} holds entries that are neither (id, scores) nor mappings with one of {', '.join(NAME_KEYS)} and one "
        f"of {', '.join(SCORE_KEYS)}"
    )


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


class _DataUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and plain containers; anything else that a pickle names is refused before it is called."""

    _ALLOWED = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy._core.multiarray", "scalar"),
            ("numpy.core.numeric", "_frombuffer"),
            ("numpy._core.numeric", "_frombuffer"),
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),  # bytes in protocol 2
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise ScoresError(
                f"the pickle wants {module}.{name}, which is neither a NumPy array nor a plain container, so it is not "
                "read; save the scores as .npz or .csv instead"
            )
        return super().find_class(module, name)
