"""Finds the mask of each image: in a tree beside the images, or in a column of a list."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.folders import walk_files
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.labels import shown
from fasttrain.beton_build.mask_info import MASK_FIELD
from fasttrain.beton_build.mask_rules import MaskRule
from fasttrain.beton_build.origins import BetonImage
from fasttrain.beton_build.sources import SampleList


@dataclass(frozen=True)
class MaskList:
    """The masks of the samples of a list.

    Attributes:
        paths: of each sample, in the order of the samples; images of other `.beton` files stand for their masks.
        rule: how their pixels are read.
        without_image: number of masks in the tree that belong to no sample.
    """

    paths: list[Path | BetonImage]
    rule: MaskRule
    without_image: int = 0

    def take(self, rows: Sequence[int]) -> "MaskList":
        """Those of some of the samples."""
        return MaskList([self.paths[row] for row in rows], self.rule, self.without_image)


def find_masks(
    samples: SampleList, rule: MaskRule, *, root: Path, suffix: str | None = None, column: str | None = None
) -> MaskList:
    """The mask of each sample.

    In a tree, the mask of ``a/x.png`` is ``ROOT/a/x.png``, or ``ROOT/a/x`` with another suffix of an image. With
    `suffix` it is ``ROOT/a/x`` and the suffix; or where that is not there, ``ROOT/a/x`` up to its last ``_``, and the
    suffix: ``x_leftImg8bit.png`` goes with ``x_gtFine_labelIds.png``.

    Args:
        root: of the tree; what paths in a `column` are relative to.
        column: of the list, that was kept with the samples and is taken from them.

    Raises:
        SourceError: masks are missing, or two images have the same one.
    """
    if column is not None:
        return MaskList(_listed(samples, column, root), rule)
    if not root.is_dir():
        raise SourceError(f"{root}: no such folder of masks")
    present = {path for path in walk_files(root) if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES}
    if suffix is not None:
        present = {path for path in present if path.endswith(suffix)}
    by_stem: dict[str, list[str]] = {}
    for path in sorted(present) if suffix is None else ():
        by_stem.setdefault(os.path.splitext(path)[0], []).append(path)
    found: list[str | None] = []
    for sample_id in samples.ids:
        found.append(_by_suffix(sample_id, suffix, present) if suffix else _by_stem(sample_id, present, by_stem, root))
    missing = [sample_id for sample_id, path in zip(samples.ids, found, strict=True) if path is None]
    if missing:
        what = "/" + os.path.splitext(missing[0])[0] + (suffix or ".png")
        raise SourceError(
            f"{len(missing)} of {len(found)} images have no mask in {root}: {shown(missing)}; that of the first was "
            f"looked for as {root}{what}{'' if suffix else ' (of any image suffix)'}; see --mask-suffix"
        )
    paths = [path for path in found if path is not None]
    _refuse_shared(samples.ids, paths)
    return MaskList([root / path for path in paths], rule, len(present - set(paths)))


def masks_of_betons(samples: SampleList) -> MaskList | None:
    """The masks that samples of other `.beton` files have there; None if none has any.

    Raises:
        SourceError: only some have, or their classes differ.
    """
    origins = [origin for origin in samples.origins if isinstance(origin, BetonImage)]
    with_masks = [origin for origin in origins if origin.reader.masks is not None]
    if not with_masks:
        return None
    if len(with_masks) < len(samples):
        raise SourceError(
            f"{with_masks[0].reader.path} holds masks, and {len(samples) - len(with_masks)} of the {len(samples)} "
            "samples come without; give their masks with --masks, or convert them by themselves"
        )
    first = with_masks[0].reader
    for reader in {id(origin.reader): origin.reader for origin in with_masks}.values():
        if reader.masks != first.masks:
            raise SourceError(f"the masks of {first.path} and {reader.path} have different classes")
    assert first.masks is not None
    return MaskList([*with_masks], MaskRule(first.masks.classes, first.masks.palette, source=str(first.path)))


def _by_suffix(sample_id: str, suffix: str, present: set[str]) -> str | None:
    stem = os.path.splitext(sample_id)[0]
    folder, _, name = stem.rpartition("/")
    shorter = f"{folder}/" * bool(folder) + name.rpartition("_")[0]
    return next((path for path in (stem + suffix, shorter + suffix) if path in present), None)


def _by_stem(sample_id: str, present: set[str], by_stem: dict[str, list[str]], root: Path) -> str | None:
    if sample_id in present:
        return sample_id
    paths = by_stem.get(os.path.splitext(sample_id)[0], [])
    if len(paths) > 1:
        raise SourceError(f"{root} holds {len(paths)} masks for the image {sample_id!r}: {shown(paths)}")
    return paths[0] if paths else None


def _refuse_shared(ids: Sequence[str], paths: Sequence[str]) -> None:
    if len(set(paths)) < len(paths):
        owner: dict[str, str] = {}
        for sample_id, path in zip(ids, paths, strict=True):
            if owner.setdefault(path, sample_id) != sample_id:
                raise SourceError(f"the images {owner[path]!r} and {sample_id!r} have the same mask, {path!r}")


def _listed(samples: SampleList, column: str, root: Path) -> list[Path | BetonImage]:
    """The paths in a column, which the samples then no longer have."""
    values = samples.columns.pop(column)
    missing = [name for name, value in zip(samples.ids, values, strict=True) if not isinstance(value, str) or not value]
    if missing:
        raise SourceError(f"{len(missing)} of {len(values)} images have no mask in column {column!r}: {shown(missing)}")
    paths: list[Path | BetonImage] = [root / value for value in values]
    gone = [str(path) for path in paths if isinstance(path, Path) and not path.is_file()]
    if gone:
        raise SourceError(f"{len(gone)} masks in column {column!r} do not exist: {shown(gone)}; see --masks")
    return paths


def refuse_kept(keep: Sequence[str]) -> None:
    """Refuse a further column of the name that masks have in the file.

    Raises:
        SourceError: there is one.
    """
    if MASK_FIELD.name in keep:
        raise SourceError(f"the column {MASK_FIELD.name!r} cannot be kept beside masks: their field has that name")
