"""Folders in the layout of a published data set: tables of nuisances (ROBIN), tar archives with a description."""

import json
from pathlib import Path

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.folders import list_folder
from fasttrain.beton_build.found import Found, SourceOptions
from fasttrain.beton_build.labels import shown
from fasttrain.beton_build.listed_files import find_listed
from fasttrain.beton_build.lists import read_table
from fasttrain.beton_build.tars import read_tar

TABLE, IMAGES = "labels.csv", "Images"
DESCRIPTION = "dataset.json"


def read_published(folder: Path, options: SourceOptions) -> list[Found]:
    """The samples of a folder in one of the layouts below, part by part; none if it is in no such layout.

    - ``labels.csv`` beside ``Images/LABEL/``;
    - sub-folders of that kind, whose names start the ids;
    - ``dataset.json`` beside the tar archives that it names, as ``--format webdataset`` writes them.

    Raises:
        SourceError: some sub-folders are of that kind and others are not, or what a list names cannot be read.
    """
    if _is_table_folder(folder):
        return [_read_table_folder(folder, options)]
    folders = [name for name, is_folder in list_folder(folder) if is_folder]
    tables = [name for name in folders if _is_table_folder(folder / name)]
    if tables:
        others = [name for name in folders if name not in tables]
        if others:
            raise SourceError(
                f"{folder} holds folders with {TABLE} and {IMAGES} ({shown(tables)}) beside others ({shown(others)}); "
                "name the wanted ones one by one"
            )
        parts = [_read_table_folder(folder / name, options) for name in tables]
        for name, part in zip(tables, parts, strict=True):
            part.prefix_ids(name)
        return parts
    return _read_archives(folder, options)


def _is_table_folder(folder: Path) -> bool:
    return (folder / TABLE).is_file() and (folder / IMAGES).is_dir()


def _read_table_folder(folder: Path, options: SourceOptions) -> Found:
    return find_listed(folder / TABLE, read_table(folder / TABLE, options), folder)


def _read_archives(folder: Path, options: SourceOptions) -> list[Found]:
    file = folder / DESCRIPTION
    if not file.is_file():
        return []
    try:
        description = json.loads(file.read_bytes())
        archives = [folder / entry["name"] for entry in description["archives"]]
        names = description["class_names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []  # another program's file of that name
    if not archives or not all(archive.is_file() for archive in archives):
        lost = [archive.name for archive in archives if not archive.is_file()]
        raise SourceError(f"{folder} lacks archives that its {DESCRIPTION} names: {shown(lost) or 'it names none'}")
    parts = [read_tar(archive, options, ids_from_json=True) for archive in archives]
    if names and options.label_column is None:
        numbers = {str(name): number for number, name in enumerate(names)}
        for part in parts:
            if part.numbers is not None or not any(part.labels):
                part.numbers = numbers  # an archive by itself knows only the classes that it holds
    return parts
