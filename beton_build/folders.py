"""Reads folders of images: one sub-folder a class, or all images in one folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.found import Found
from fasttrain.beton_build.images import IMAGE_SUFFIXES
from fasttrain.beton_build.labels import shown


def read_folder(root: Path, strict: bool) -> Found:
    """The images of a tree of class folders, or of a plain folder, sorted by name.

    Args:
        strict: refuse class folders without an image.

    Raises:
        SourceError: there is no image, or images lie beside class folders.
        OSError: a folder cannot be read.
    """
    found = Found(str(root))
    empty: list[str] = []
    top_images = 0
    archives = 0
    for name, is_folder in list_folder(root):
        if not is_folder:
            top_images += _add_file(found, root / name, name, None)
            archives += name.lower().endswith(".tar")
            continue
        before = len(found.ids)
        for relative in _walk(root / name, ()):
            _add_file(found, root / name / relative, f"{name}/{relative}", name)
        if len(found.ids) == before:
            empty.append(name)
    if not found.ids:
        hint = f"; name its {archives} tar archives one by one, as {root}/*.tar" if archives else ""
        raise SourceError(f"{root} holds no image (known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))}){hint}")
    if top_images and top_images < len(found.ids):
        raise SourceError(
            f"{root} holds {top_images} images beside its class folders; "
            "move them into a folder of their class, or list the wanted ones in a file"
        )
    if empty and not top_images and strict:
        raise SourceError(
            f"class folder without an image in {root}: {shown(empty)}; remove it, or name the classes with --classes"
        )
    return found


def read_tree(root: Path) -> Found:
    """All images under a folder, at any depth, sorted by name; names of folders are no labels.

    Raises:
        SourceError: there is no image.
        OSError: a folder cannot be read.
    """
    found = Found(str(root))
    for relative in walk_files(root):
        _add_file(found, root / relative, relative, None)
    if not found.ids:
        raise SourceError(f"{root} holds no image (known suffixes: {' '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def walk_files(folder: Path) -> Iterator[str]:
    """Relative paths of all files under `folder`, with forward slashes, sorted.

    Raises:
        OSError: a folder cannot be read.
    """
    return _walk(folder, ())


def list_folder(folder: Path) -> list[tuple[str, bool]]:
    """(name, is a folder) of what lies in `folder`, sorted by name; hidden entries left out.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))


def _add_file(found: Found, path: Path, sample_id: str, label: str | None) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        found.ignored += 1
        return False
    found.ids.append(sample_id)
    found.origins.append(path)
    found.labels.append(label)
    return True


def _walk(folder: Path, ancestors: tuple[str, ...]) -> Iterator[str]:
    """Relative paths of all files under `folder`, sorted; links are followed, but not in a circle."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return
    for name, is_folder in list_folder(folder):
        if is_folder:
            yield from (f"{name}/{path}" for path in _walk(folder / name, (*ancestors, real)))
        else:
            yield name
