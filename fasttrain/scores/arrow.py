"""The file format of a score table: one Arrow IPC file whose columns can be memory-mapped.

Columns: ``id`` (string), ``label`` (int32, null when unknown), ``scores`` (fixed-size list of C float16 or float32) and,
after a re-distribution, ``assigned`` (int32) and ``assigned_p`` (float32). The schema metadata holds one JSON object
under `METADATA_KEY` with the class names, the kind of the scores and the free-form ``meta``.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fasttrain.base.atomic import atomic_path
from fasttrain.base.errors import ScoresError

UNKNOWN = -1
METADATA_KEY = b"fasttrain.scores"
FORMAT_VERSION = 1


def write_table(
    path: str | os.PathLike[str],
    header: dict[str, Any],
    ids: list[str],
    labels: npt.NDArray[np.int32],
    scores: npt.NDArray[Any],
    *,
    assigned: npt.NDArray[np.int32] | None,
    assigned_p: npt.NDArray[np.float32] | None,
) -> None:
    """Write the columns of a table as a single record batch, so that reading needs no copy; atomic."""
    flat = pa.array(np.ascontiguousarray(scores).reshape(-1))
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.string()),
        "label": pa.array(labels, pa.int32(), mask=labels == UNKNOWN),
        "scores": pa.FixedSizeListArray.from_arrays(flat, scores.shape[1]),
    }
    if assigned is not None:
        columns["assigned"] = pa.array(assigned, pa.int32())
    if assigned_p is not None:
        columns["assigned_p"] = pa.array(assigned_p, pa.float32())
    text = json.dumps({"version": FORMAT_VERSION, **header}, default=_plain)
    schema = pa.schema([pa.field(name, column.type) for name, column in columns.items()])
    schema = schema.with_metadata({METADATA_KEY: text.encode()})
    batch = pa.RecordBatch.from_arrays(list(columns.values()), schema=schema)
    with atomic_path(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        out.write_batch(batch)


def read_table(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Memory-map a file; return its header and its columns as the fields of a score table.

    Raises:
        ScoresError: the file is missing, not an Arrow IPC file, or not a score table.
    """
    table = _open(path)
    header_bytes = (table.schema.metadata or {}).get(METADATA_KEY)
    missing = [name for name in ("id", "label", "scores") if name not in table.column_names]
    if header_bytes is None or missing:
        lacking = ", ".join(missing) or "its header"
        raise ScoresError(f"{path} is an Arrow file but not a score table: it lacks {lacking}")
    try:
        header = json.loads(header_bytes)
        if header["version"] != FORMAT_VERSION:
            raise ValueError(f"version {header['version']} is not known, only {FORMAT_VERSION} is")
        for key, kind in (("classes", list), ("kind", str)):
            if not isinstance(header[key], kind):
                raise TypeError(f"{key} is not a {kind.__name__}")
        return header, _columns(table)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, KeyError, TypeError) as error:
        raise ScoresError(f"{path} is a damaged score table ({type(error).__name__}: {error})") from None


def _open(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise ScoresError(f"{path}: no such score table") from None
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScoresError(
            f"{path} is not a complete Arrow IPC file ({reason}); bring other formats in with `fasttrain scores import`"
        ) from None


def _columns(table: pa.Table) -> dict[str, Any]:
    columns = {
        "ids": table.column("id").to_pylist(),
        "labels": _single(table.column("label").fill_null(UNKNOWN)).to_numpy(zero_copy_only=False),
        "scores": _matrix(table.column("scores")),
    }
    for name in ("assigned", "assigned_p"):
        if name in table.column_names:
            columns[name] = _single(table.column(name)).to_numpy()
    return columns


def _single(column: pa.ChunkedArray) -> pa.Array:
    """One array of a column; no copy when the file has a single record batch, as ours have."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    array = _single(column)
    if not pa.types.is_fixed_size_list(array.type) or array.null_count:
        raise ValueError(f"the scores column must be a fixed-size list without nulls, not {array.type}")
    return array.flatten().to_numpy(zero_copy_only=True).reshape(len(array), array.type.list_size)


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, and paths, as JSON holds them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
