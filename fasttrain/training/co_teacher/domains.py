"""The domain of each sample, and how often samples are drawn so that all domains come equally often."""

from pathlib import Path

import numpy as np

from fasttrain.base.errors import BetonError, ConfigError, LoaderError
from fasttrain.beton_build.found import SourceOptions
from fasttrain.beton_build.lists import ID_COLUMNS, TABLE_SUFFIXES, read_table
from fasttrain.loading.loader import Loader

FOLDER = "folder"
COLUMN = "domain"
_NAMED = 3  # ids that an error names


def domains_of(where: str, loader: Loader) -> list[str]:
    """The domain of each sample that a loader goes through, in the order of its `rows`.

    Args:
        where: ``folder``, a table of ids and domains, or a field of the data set; see `CoTeacherSettings`.

    Raises:
        ConfigError: samples are without one, or all of one; the first are named.
        SourceError: the table cannot be read.
    """
    if where == FOLDER:
        found = [name.partition("/")[0] if "/" in name else "" for name in loader.string_ids(loader.rows)]
        lacking = "lie in no folder, whose name would be their domain"
    elif Path(where).suffix.lower() in TABLE_SUFFIXES:
        found, lacking = _from_table(Path(where), loader), f"have no domain in {where}"
    else:
        found, lacking = _from_field(where, loader), f"have no number in the field {where!r}"
    missing = [row for row, domain in zip(loader.rows.tolist(), found, strict=True) if not domain]
    if missing:
        named = ", ".join(map(repr, loader.string_ids(missing[:_NAMED])))
        raise ConfigError(f"co_teacher.domains: {len(missing)} samples of {loader.dataset.name} {lacking}: {named}")
    if len(set(found)) == 1:
        raise ConfigError(
            f"co_teacher.domains: all samples of {loader.dataset.name} are of one domain, {found[0]!r}; leave it out, "
            "and partners are any images"
        )
    return found


def domain_weights(domains: list[str], rows: np.ndarray, count: int) -> np.ndarray:
    """How often each of `count` samples is drawn, (count,) float64: those of `rows` such that all of their domains are
    equally likely, and within one all samples; the others never."""
    _, members, sizes = np.unique(domains, return_inverse=True, return_counts=True)
    weights = np.zeros(count)
    weights[rows] = 1 / sizes[members]
    return weights


def _from_table(path: Path, loader: Loader) -> list[str]:
    table = read_table(path, SourceOptions(label_column=COLUMN), ID_COLUMNS, needs_label=True)
    domains = dict(zip(table.paths, table.labels, strict=True))
    return [domains.get(name) or "" for name in loader.string_ids(loader.rows)]


def _from_field(name: str, loader: Loader) -> list[str]:
    try:
        column = loader.dataset.column(name)
    except (BetonError, LoaderError) as error:
        raise ConfigError(
            f"co_teacher.domains: {error} (it takes a field of numbers, a table with the columns id,{COLUMN}, or "
            f"{FOLDER!r})"
        ) from None
    values = column[loader.rows]
    return ["" if value != value else str(value) for value in values.tolist()]
