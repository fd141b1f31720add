"""The samples' string ids, kept as bytes and decoded one by one."""

from collections.abc import Sequence
from typing import overload

import numpy as np

from fasttrain.beton_build.trailer import decode_id


class SampleIds(Sequence[str]):
    """The string ids of a file's samples, decoded when asked for. A file without ids has its rows: "0", "1", …"""

    def __init__(self, count: int, offsets: np.ndarray | None = None, blob: memoryview | None = None) -> None:
        self._count, self._offsets, self._blob = count, offsets, blob

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self.take(range(*row.indices(self._count)))
        if not -self._count <= row < self._count:
            raise IndexError(f"row {row} of {self._count} samples")
        row = int(row) % self._count
        if self._offsets is None or self._blob is None:
            return str(row)
        return decode_id(self._blob[int(self._offsets[row]) : int(self._offsets[row + 1])])

    def take(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        """The ids of `rows`, in their order."""
        return [self[int(row)] for row in rows]
