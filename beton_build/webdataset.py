"""Writes WebDataset: a folder of tar archives, with an index beside each for DALI's ``readers.webdataset``.

    OUT/shard-000000.tar    members NUMBER.jpg, NUMBER.cls (the label, absent where unknown), NUMBER.json (id, columns)
    OUT/shard-000000.idx    DALI's index, version 1.2: a line a sample of "suffix offset size name" for each member
    OUT/dataset.json        samples, class names, archives, how it was built

The format is https://github.com/webdataset/webdataset's; the index is what DALI's ``wds2idx`` writes. Member names are
numbers, because WebDataset splits a name at its first dot and string ids may hold any character.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from fasttrain.base.atomic import part_path, sync_folder
from fasttrain.base.errors import BetonError, SourceError
from fasttrain.beton_build import format as fmt
from fasttrain.beton_build.records import Original
from fasttrain.beton_build.values import EncodedImage, Value

DESCRIPTION = "dataset.json"
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)


class TarFolderWriter:
    """Writes samples (image, label, further fields) to a folder of tar archives. A context manager.

    Args:
        folder: the folder to write; it grows under ``NAME.part``.
        fields: of a sample; the first is the image, the second the label.
        tar_bytes: size at which an archive is ended and the next one begun.
        going_on: continue a ``NAME.part`` that is there; `restore` must be called before the first `add`.

    Attributes:
        keep_part: leave ``NAME.part`` when the block ends with an error, for going on later.
    """

    def __init__(
        self,
        folder: Path,
        fields: Sequence[fmt.FieldSpec],
        class_names: Sequence[str] | None,
        info: dict[str, Any],
        tar_bytes: int,
        *,
        going_on: bool = False,
    ) -> None:
        self.folder, self.fields = folder, tuple(fields)
        self.class_names = None if class_names is None else list(class_names)
        self.info, self.tar_bytes = info, tar_bytes
        self.keep_part = False
        self._going_on = going_on
        self._count = 0
        self._archives: list[int] = []  # samples of each archive that is ended
        self._index: list[str] = []  # lines of the current one
        self._position = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "TarFolderWriter":
        part = part_path(self.folder)
        if not self._going_on and part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=self._going_on)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._close()
        if error is not None and not self.keep_part:
            self.discard()

    def __len__(self) -> int:
        return self._count

    def add(self, sample_id: str, values: Sequence[Value], original: Original | None = None) -> None:
        """Append one sample.

        Raises:
            BetonError: the image is stored as pixels, for which WebDataset has no form.
        """
        image, label = values[0], values[1]
        if not isinstance(image, EncodedImage) or image.mode != fmt.MODE_JPG:
            raise BetonError(f"sample {sample_id!r} is stored as pixels, which cannot go into a tar archive as a file")
        if self._position >= self.tar_bytes:
            self._end_archive()
        about: dict[str, Any] = {"id": sample_id}
        if isinstance(label, int) and label >= 0 and self.class_names:
            about["label_name"] = self.class_names[label]
        about |= {spec.name: value for spec, value in zip(self.fields[2:], values[2:], strict=True)}
        key = f"{self._count:09d}"
        members = [self._member(f"{key}.jpg", bytes(image.data))]
        if isinstance(label, int) and label >= 0:
            members.append(self._member(f"{key}.cls", str(label).encode()))
        members.append(self._member(f"{key}.json", json.dumps(about, default=_as_json).encode()))
        self._index.append(" ".join(members))
        self._count += 1

    def _member(self, name: str, data: bytes) -> str:
        """Write a member; its part of the index line."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(data), 0o644
        start = self._position + _BLOCK
        self._write(header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK))
        return f"{name.partition('.')[2]} {start} {len(data)} {name}"

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._archive(len(self._archives)).open("ab")
        self._file.write(data)
        self._position += len(data)

    def _archive(self, number: int, suffix: str = "tar") -> Path:
        return part_path(self.folder) / f"shard-{number:06d}.{suffix}"

    def _end_archive(self) -> None:
        number = len(self._archives)
        self._write(_END)
        self.sync()
        self._close()
        index = f"v1.2 {len(self._index)}\n" + "".join(f"{line}\n" for line in self._index)
        _write_synced(self._archive(number, "idx"), index)
        self._archives.append(len(self._index))
        self._index, self._position = [], 0

    # ---- going on after an interruption ------------------------------------------------------------------------

    def sync(self) -> None:
        """Bring everything that was added to the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        sync_folder(part_path(self.folder))

    def snapshot(self, start: int) -> dict[str, Any]:
        """Where the folder stands; each snapshot is whole in itself."""
        state = {
            "count": self._count,
            "archives": self._archives,
            "index": self._index,
            "position": self._position,
        }
        return {"records": json.dumps(state).encode()}

    def restore(self, snapshots: Sequence[dict[str, Any]]) -> None:
        """Stand where the last of `snapshots` was taken; what was written later is cut off.

        Raises:
            BetonError: the folder has lost something that was in it then.
        """
        state = json.loads(snapshots[-1]["records"])
        self._count, self._archives = state["count"], state["archives"]
        self._index, self._position = state["index"], state["position"]
        current = len(self._archives)
        for file in part_path(self.folder).iterdir():
            number = file.stem.rpartition("-")[2]
            if not number.isdigit() or int(number) > current or (int(number) == current and file.suffix == ".idx"):
                file.unlink()
        held = self._archive(current).stat().st_size if self._archive(current).exists() else 0
        ended = [self._archive(number, suffix) for number in range(current) for suffix in ("tar", "idx")]
        if held < self._position or not all(file.exists() for file in ended):
            raise BetonError(
                f"{part_path(self.folder)} has lost archives since the build was interrupted, so nothing of it can be "
                "used; build again"
            )
        if held:
            os.truncate(self._archive(current), self._position)

    # ---- the end -----------------------------------------------------------------------------------------------

    def complete(self) -> None:
        """End the last archive and describe the whole."""
        if self._index:
            self._end_archive()
        description = {
            "samples": self._count,
            "class_names": self.class_names,
            "archives": [
                {"name": self._archive(number).name, "samples": samples}
                for number, samples in enumerate(self._archives)
            ],
            "build": self.info,
        }
        _write_synced(part_path(self.folder) / DESCRIPTION, json.dumps(description, indent=1) + "\n")
        sync_folder(part_path(self.folder))

    def published(self) -> None:
        """The folder has its name; there is nothing left to hold."""

    def discard(self) -> None:
        """Remove what was written."""
        self._close()
        with suppress(FileNotFoundError):
            shutil.rmtree(part_path(self.folder))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def publish_folder(part: Path, folder: Path) -> None:
    """Give a completed folder its name; one that is there before is replaced."""
    if folder.exists():
        shutil.rmtree(folder)
    part.rename(folder)
    sync_folder(folder.parent)


def read_description(folder: Path) -> dict[str, Any]:
    """What ``dataset.json`` in a folder of archives says.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / DESCRIPTION} cannot be read: {error}") from None
    if not isinstance(description, dict):
        raise SourceError(f"{folder / DESCRIPTION} is not a description of tar archives")
    return description


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
