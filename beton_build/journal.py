"""What a build has brought to the disk so far, so that it can go on after any interruption.

The journal lies beside the output (``OUT.journal``) and is only ever appended to. A record is written after the data
that it tells of have been synced, and carries a checksum: a torn one at the end is as if it had not been written.

    record   magic (8 bytes), length and xxh3-64 of the payload (uint64 each), payload
    payload  length of the JSON part (uint32), JSON, then binary blobs whose lengths the JSON part lists

The first record says which build it is (sources, options, versions); each other one what was done since the one before.
"""

import fcntl
import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttrain.base.atomic import sync_folder
from fasttrain.base.errors import SourceError
from fasttrain.beton_build.trailer import checksum

_MAGIC = b"FASTJRNL"
_HEAD = struct.Struct("<8sQQ")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """One entry: JSON values, and bytes that belong to them."""

    values: dict[str, Any]
    blobs: list[bytes] = field(default_factory=list)


def journal_path(out: Path) -> Path:
    """Where the journal of a build to `out` lies."""
    return out.with_name(out.name + ".journal")


class Journal:
    """An open journal. Only one process at a time can hold it.

    Attributes:
        records: what was in it when it was opened, without the first record.

    Raises:
        SourceError: another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise SourceError(
                f"another process is building {path.name.removesuffix('.journal')} in this folder"
            ) from None
        found, length = _read_records(self._file.read() if self._file.seek(0) == 0 else b"")
        self._file.truncate(length)  # a torn record
        self.identity: dict[str, Any] | None = found[0].values if found else None
        self.records = found[1:]

    def begin(self, identity: dict[str, Any]) -> None:
        """Forget what is there, and start the journal of another build."""
        self._file.truncate(0)
        self.records = []
        self.identity = identity
        self.append(Record(identity))
        sync_folder(self.path.parent)

    def append(self, record: Record) -> None:
        """Add a record and bring it to the disk."""
        values = json.dumps(record.values | {"blobs": [len(blob) for blob in record.blobs]}).encode()
        payload = b"".join([_LENGTH.pack(len(values)), values, *record.blobs])
        data = memoryview(_HEAD.pack(_MAGIC, len(payload), checksum(payload)) + payload)
        while data.nbytes:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Delete the journal: the build is over."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the journal and leave it where it is."""
        self._file.close()


def _read_records(data: bytes) -> tuple[list[Record], int]:
    """All whole records, and how many bytes they take."""
    records: list[Record] = []
    position = 0
    while len(data) - position >= _HEAD.size:
        magic, length, expected = _HEAD.unpack_from(data, position)
        payload = data[position + _HEAD.size :][:length]
        if magic != _MAGIC or len(payload) < length or checksum(payload) != expected:
            break
        records.append(_parse(payload))
        position += _HEAD.size + length
    return records, position


def _parse(payload: bytes) -> Record:
    (length,) = _LENGTH.unpack_from(payload)
    position = _LENGTH.size + length
    values = json.loads(payload[_LENGTH.size : position])
    blobs = []
    for size in values.pop("blobs"):
        blobs.append(payload[position : position + size])
        position += size
    return Record(values, blobs)
