"""Finds the files that a list names: beside the list, beside its folder, or in folders named after the labels."""

import os
from collections.abc import Sequence
from pathlib import Path

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.found import Entries, Found
from fasttrain.beton_build.labels import shown

LABEL_FOLDERS = ("Images/{label}", "{label}")  # where a file may lie that is listed by its bare name


def find_listed(source: Path, entries: Entries, root: Path) -> Found:
    """Look up the paths of a list.

    A path is relative to `root`. If its first folder is not there but beside `root`, as `testa` in a list of
    ``train/`` whose images lie in ``testa/``, it is taken there. A file that is not there is looked for in
    ``Images/LABEL/`` and ``LABEL/``. The ids are the listed paths, or the paths under `root` where listed names of
    files in label folders repeat.

    Raises:
        SourceError: nothing is listed, or none of the images exists (single ones that are missing are noted).
    """
    if not entries.paths:
        raise SourceError(f"{source} lists no image")
    beside = _folders_beside(entries.paths, root)
    base, parent = str(root), str(root.absolute().parent)
    places: list[str] = []
    missing: list[str] = []
    moved = False
    for path, label in zip(entries.paths, entries.labels, strict=True):
        place = os.path.join(parent if path.partition("/")[0] in beside else base, path)
        if not os.path.exists(place):
            found = _in_label_folder(base, path, label)
            moved |= found is not None
            if found is None:
                missing.append(path)
            place = found or place
        places.append(place)
    if len(missing) == len(places):
        raise SourceError(
            f"none of the {len(places)} images in {source} exists, as {shown(missing)}: "
            f"paths are taken relative to {root}; give another folder with --root"
        )
    ids = [list_id(path, root) for path in entries.paths]
    if moved and len(set(ids)) < len(ids):
        ids = [list_id(os.path.relpath(place, base), root) for place in places]
    return Found(
        str(source),
        ids,
        [Path(place) for place in places],
        entries.labels,
        entries.numbers,
        indices=True,
        columns=entries.columns,
        offered=entries.offered,
        missing=missing,
    )


def list_id(path: str, root: Path) -> str:
    """The listed path, relative to `root` where it lies inside, with forward slashes."""
    if os.path.isabs(path):
        try:
            path = str(Path(path).relative_to(root.absolute()))
        except ValueError:
            return Path(path).as_posix()
    return Path(os.path.normpath(path)).as_posix() if _is_odd(path) else path


def _is_odd(path: str) -> bool:
    """Whether a relative path may be written in a simpler way; most are not, which saves most of the time."""
    return os.sep != "/" or "//" in path or path[-1] == "/" or path[0] == "." or "/." in path


def _folders_beside(paths: Sequence[str], root: Path) -> set[str]:
    """First folders of the paths that do not lie in `root` but beside it."""
    firsts = {path.partition("/")[0] for path in paths if "/" in path} - {"", ".", ".."}
    parent = root.absolute().parent
    return {name for name in firsts if not (root / name).exists() and (parent / name).is_dir()}


def _in_label_folder(base: str, path: str, label: str | None) -> str | None:
    """Where a file lies that was not found directly, None if nowhere."""
    if not label or os.path.isabs(path):
        return None
    places = (os.path.join(base, folder.format(label=label), path) for folder in LABEL_FOLDERS)
    return next((place for place in places if os.path.exists(place)), None)
