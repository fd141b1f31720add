"""What the pixels of mask files mean, as the user declares it: class names, palette, maps of values."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.labels import read_class_names, read_text, shown
from fasttrain.beton_build.mask_info import IGNORE, LAYOUT, MASK_FIELD, MAX_CLASSES, Colour

MAX_VALUE = 65_535  # of a 16-bit mask


@dataclass(frozen=True)
class MaskRule:
    """How the pixels of masks are read.

    Attributes:
        classes: names of the values 0, 1, …; None where nobody named them.
        palette: colour of each class, None where none was declared. RGB masks are read by it, and it must agree with
            the palettes of palette PNGs.
        ignored, ignored_colours: values and colours that become `IGNORE`.
        table: what each value of a mask becomes, None for what it is. Only with it are 16-bit masks read.
        source: the files that say so, for messages.
    """

    classes: tuple[str, ...] | None = None
    palette: tuple[Colour, ...] | None = None
    ignored: tuple[int, ...] = ()
    ignored_colours: tuple[Colour, ...] = ()
    table: dict[int, int] | None = None
    source: str = ""
    _lookups: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def columns(self) -> int:
        """Classes to be counted: those that are known, else as many as there may be."""
        return MAX_CLASSES if self.classes is None else len(self.classes)

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """Class numbers (H, W) uint8 of the values of a mask, (H, W) of unsigned integers.

        Raises:
            ValueError: a value belongs to no class; the message is the reason.
        """
        wide = values.dtype != np.uint8
        if wide and self.table is None:
            raise ValueError("it has 16 bits a pixel; say what its values become with --mask-map, or save 8 bits")
        bits = 16 if wide else 8
        if bits not in self._lookups:
            self._lookups[bits] = self._lookup(bits)
        numbers: np.ndarray = self._lookups[bits][values]
        if numbers.max(initial=0) > IGNORE:
            unknown = np.unique(values[numbers > IGNORE]).tolist()
            raise ValueError(
                f"its pixels have the value{'s' * (len(unknown) > 1)} {_listed(unknown)}, {self._no_class()}"
            )
        return numbers.astype(np.uint8)

    def numbers_of_colours(self, pixels: np.ndarray) -> np.ndarray:
        """The same of (H, W, 3) uint8 RGB, by the palette."""
        if self.palette is None:
            raise ValueError("its pixels are colours; say which class each colour is with --palette")
        colours = (*self.palette, *self.ignored_colours)
        codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        known = np.array([(red << 16) | (green << 8) | blue for red, green, blue in colours], np.uint32)
        order = np.argsort(known, kind="stable")
        place = np.searchsorted(known[order], codes).clip(0, len(known) - 1)
        numbers = order[place]
        strange = known[numbers] != codes
        if strange.any():
            found = [f"({code >> 16}, {code >> 8 & 255}, {code & 255})" for code in np.unique(codes[strange]).tolist()]
            raise ValueError(
                f"its palette does not match: it has the colours {_listed(found)}, which {self.source} does not list"
            )
        skipped = (numbers >= len(self.palette)) | np.isin(numbers, self.ignored)
        return np.where(skipped, IGNORE, numbers).astype(np.uint8)

    def check_palette(self, stored: Sequence[int], used: np.ndarray) -> None:
        """Compare the palette of a PNG (R, G, B of each value) with the declared one.

        Raises:
            ValueError: a value that is `used` has another colour.
        """
        for value in used.tolist() if self.palette is not None and self.table is None else []:
            if value < len(self.palette or ()) and 3 * value + 3 <= len(stored):
                theirs, ours = tuple(stored[3 * value : 3 * value + 3]), (self.palette or ())[value]
                if theirs != ours:
                    raise ValueError(
                        f"its palette does not match: value {value} has the colour {theirs} there and {ours} in "
                        f"{self.source}"
                    )

    def _lookup(self, bits: int) -> np.ndarray:
        """(2^bits,) uint16: the class number of each value, above `IGNORE` where it has none."""
        lookup = np.arange(1 << bits, dtype=np.uint16)
        if self.table is not None:
            lookup[:] = IGNORE + 1
            inside = {value: number for value, number in self.table.items() if value < 1 << bits}
            lookup[list(inside)] = list(inside.values())
        if self.classes is not None:
            lookup[(lookup >= len(self.classes)) & (lookup != IGNORE)] = IGNORE + 1
        ignored = [value for value in self.ignored if value < 1 << bits]
        lookup[ignored] = IGNORE
        return lookup

    def _no_class(self) -> str:
        if self.table is not None:
            return "which the table of --mask-map does not list"
        known, last = self.source or "the class list", len(self.classes or ()) - 1
        return f"but {known} names {last + 1} classes, 0 to {last}; --ignore leaves a value out"

    # ---- in the file -------------------------------------------------------------------------------------------

    def description(self) -> dict[str, Any]:
        """What the file says about its masks."""
        return {
            "field": MASK_FIELD.name,
            "layout": LAYOUT,
            "ignore": IGNORE,
            "classes": None if self.classes is None else list(self.classes),
            "palette": None if self.palette is None else [list(colour) for colour in self.palette],
        }

    def recorded(self) -> dict[str, Any]:
        """All that determines how masks are read, for the identity of a build."""
        table = None if self.table is None else sorted(self.table.items())
        return self.description() | {
            "ignored": sorted(self.ignored),
            "ignored_colours": list(self.ignored_colours),
            "table": table,
        }


# --- what the user declares -------------------------------------------------------------------------------------------


def read_rule(
    *,
    classes: Path | None = None,
    palette: Path | None = None,
    ignored: Sequence[int] = (),
    table: Path | None = None,
) -> MaskRule:
    """The rule that these files state.

    Args:
        classes: names of classes, one a line.
        palette: a table ``name,r,g,b[,id]`` (a header is not needed); without ids, lines count from 0. The id 255 says
            that a colour counts for nothing.
        ignored: values that become `IGNORE`.
        table: a table ``from,to`` of values; ``ignore`` (or 255) as `to` for none.

    Raises:
        SourceError: a file cannot be read or contradicts another.
    """
    for value in ignored:
        if not 0 <= value <= MAX_VALUE:
            raise SourceError(f"--ignore takes values of masks, 0 to {MAX_VALUE}, not {value}")
    names = None if classes is None else tuple(read_class_names(classes))
    colours: tuple[Colour, ...] | None = None
    nothing: tuple[Colour, ...] = ()
    if palette is not None:
        listed, colours, nothing = _read_palette(palette)
        if names is not None and names != listed:
            raise SourceError(f"{palette} and {classes} name different classes")
        names = listed
    if names is not None and len(names) > MAX_CLASSES:
        raise SourceError(f"{palette or classes} names {len(names)} classes; masks hold at most {MAX_CLASSES}")
    source = str(palette or classes or "")
    return MaskRule(names, colours, tuple(ignored), nothing, None if table is None else _read_table(table), source)


def _read_palette(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...], tuple[Colour, ...]]:
    """Names and colours by class number, and colours of what counts for nothing."""
    nothing: list[Colour] = []
    entries: dict[int, tuple[str, Colour]] = {}
    for number, row in _rows(path, "name"):
        try:
            red, green, blue = (int(value) for value in row[1:4])
            index = int(row[4]) if len(row) > 4 and row[4] else len(entries)
        except ValueError:
            raise SourceError(f"{path}, line {number}: a palette has lines as name,r,g,b or name,r,g,b,id") from None
        if not all(0 <= level <= 255 for level in (red, green, blue)) or not 0 <= index <= IGNORE:
            raise SourceError(f"{path}, line {number}: colours go from 0 to 255, ids from 0 to {IGNORE}")
        if index == IGNORE:
            nothing.append((red, green, blue))
            continue
        if index in entries:
            raise SourceError(f"{path}, line {number}: class {index} was listed before")
        entries[index] = (row[0], (red, green, blue))
    if not entries or sorted(entries) != list(range(len(entries))):
        raise SourceError(
            f"{path} must list the ids 0 to {max(len(entries), 1) - 1} without a gap; map values with --mask-map"
        )
    names, colours = zip(*(entries[index] for index in sorted(entries)), strict=True)
    for values in (names, (*colours, *nothing)):
        if len(set(values)) < len(values):
            repeated = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
            raise SourceError(f"{path} lists more than once: {shown(repeated)}")
    return names, colours, tuple(nothing)


def _read_table(path: Path) -> dict[int, int]:
    table: dict[int, int] = {}
    for number, row in _rows(path, "from"):
        try:
            value, to = int(row[0]), IGNORE if row[1].lower() == "ignore" else int(row[1])
        except (ValueError, IndexError):
            raise SourceError(f"{path}, line {number}: a map of values has lines as from,to (or from,ignore)") from None
        if not (0 <= value <= MAX_VALUE and 0 <= to <= IGNORE) or table.setdefault(value, to) != to:
            raise SourceError(
                f"{path}, line {number}: values go from 0 to {MAX_VALUE}, each listed once, to 0 to {IGNORE}"
            )
    return table


def _rows(path: Path, first: str) -> list[tuple[int, list[str]]]:
    """(line number, cells) of each line that is not empty, the header left out."""
    reader = csv.reader(StringIO(read_text(path), newline=""))
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    if rows and rows[0][1][0].lower() == first:
        rows = rows[1:]
    if not rows:
        raise SourceError(f"{path} lists nothing")
    return rows


def _listed(values: Sequence[object]) -> str:
    text = ", ".join(map(str, values[:5]))
    return text if len(values) <= 5 else f"{text}, …"
