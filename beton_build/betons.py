"""Reads other `.beton` files as a source: their images as they are stored, ids, labels, classes and further fields."""

from pathlib import Path
from typing import Any

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.format import IMAGE_FIELD, INT_FIELD, FieldSpec
from fasttrain.beton_build.found import Found, SourceOptions
from fasttrain.beton_build.origins import BetonImage
from fasttrain.beton_build.reader import BetonReader


def read_beton(path: Path, options: SourceOptions) -> Found:
    """The samples of a `.beton`. A file without ids (FFCV's) gives ``STEM/ROW``.

    Raises:
        SourceError: the file holds no images or no samples.
        BetonError: it is damaged.
    """
    reader = BetonReader(path)
    if not reader.has_images:
        raise SourceError(f"{path} has no image field, so it cannot be a source of images")
    if not reader.num_samples:
        raise SourceError(f"{path} holds no sample")
    rows = range(reader.num_samples)
    found = Found(str(path), origins=[BetonImage(reader, row) for row in rows])
    found.ids = reader.ids[:] if reader.has_trailer else [f"{path.stem}/{row}" for row in rows]
    names, numbers = reader.class_names, reader.labels.tolist()
    if names is not None and len(set(names)) == len(names):
        found.labels = [names[number] if number >= 0 else None for number in numbers]
        found.numbers = {name: number for number, name in enumerate(names)}
    else:
        found.labels = [str(number) if number >= 0 else None for number in numbers]
        found.indices = True
    specs = _further_fields(reader.fields)
    if reader.masks is not None:
        specs.pop(reader.masks.field)  # which goes with the images: see `fasttrain.beton_build.mask_lists`
    found.offered = list(specs)
    found.columns = {name: _values(reader, specs[name]) for name in options.kept(specs)}
    return found


def _further_fields(fields: tuple[FieldSpec, ...]) -> dict[str, FieldSpec]:
    """The fields other than the image and the label, by name."""
    image = next((field for field in fields if field.type_id == IMAGE_FIELD), None)
    label = next((field for field in fields if field.type_id == INT_FIELD), None)
    return {field.name: field for field in fields if field is not image and field is not label}


def _values(reader: BetonReader, spec: FieldSpec) -> list[Any]:
    if spec.type_id == IMAGE_FIELD:
        raise SourceError(f"{reader.path}: {spec.name!r} holds further images, which cannot be kept")
    if spec.has_region:
        return [reader.value(row, spec.name) for row in range(reader.num_samples)]
    return list(reader.column(spec.name).tolist())
