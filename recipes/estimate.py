"""What a recipe will cost: seconds and bytes, as far as earlier results tell."""

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fasttrain.recipes.command import files_of
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.kind import DATASET, TABLE
from fasttrain.recipes.references import ExternalFile, StageOutput
from fasttrain.recipes.state import Record, WorkFolder

DEFAULT_EPOCHS = 10  # of `fasttrain train`
ID_BYTES = 40


@dataclass
class Estimate:
    """Of the stages that are left to do.

    Attributes:
        stages: how many there are.
        seconds: one after the other, of those whose rate is known from earlier results; an upper bound where
            pseudo-labels decide how many samples there are.
        bytes: of the data sets and tables that are to be written, as far as their sizes are known.
        free: bytes where they are to go.
        unknown: stages that `seconds` leaves out.
    """

    stages: int
    seconds: float
    bytes: int
    free: int
    unknown: list[str]

    def as_json(self) -> dict[str, Any]:
        """As ``--json`` shows it."""
        return {**asdict(self), "seconds": round(self.seconds, 1)}


def estimate(stages: list[Stage], folder: WorkFolder, classes: int | None = None) -> Estimate:
    """Estimate what is left to do of `stages`.

    Args:
        folder: its records tell how fast stages of the same name or kind were, and how large.
        classes: number of them, for the size of score tables.
    """
    records = {stage.name: folder.record(stage) for stage in stages}
    rates = _rates(stages, records)
    found = Estimate(0, 0.0, 0, _free(folder.path), [])
    samples: dict[str, int | None] = {}
    for stage in stages:
        record = records[stage.name]
        samples[stage.name] = _samples(stage, record, samples)
        if record is not None:
            continue
        found.stages += 1
        found.bytes += _bytes(stage, samples[stage.name], classes)
        units = _units(stage, _input_samples(stage, samples))
        rate = rates.get(stage.template) or rates.get(f"kind {stage.kind.name}")
        if rate is None or units is None:
            found.unknown.append(stage.name)
        else:
            found.seconds += rate * units
    return found


def _rates(stages: list[Stage], records: dict[str, Record | None]) -> dict[str, float]:
    """Seconds a unit of work, by stage of the recipe and by kind; the slowest counts."""
    rates: dict[str, float] = {}
    for stage in stages:
        record = records[stage.name]
        units = _units_done(stage, record) if record is not None else None
        if record is not None and units:
            for name in (stage.template, f"kind {stage.kind.name}"):
                rates[name] = max(rates.get(name, 0.0), record.seconds / units)
    return rates


def _units_done(stage: Stage, record: Record) -> float | None:
    if stage.kind.work == "samples*epochs":
        speed = record.result.get("images_per_s")
        return record.seconds * speed if speed else None
    return _units(stage, record.result.get("samples"))


def _units(stage: Stage, samples: int | None) -> float | None:
    if stage.kind.work is None:
        return 1.0
    if samples is None:
        return None
    epochs = stage.body.get("epochs", DEFAULT_EPOCHS) if stage.kind.work == "samples*epochs" else 1
    return float(samples * epochs) if isinstance(epochs, int) else None


def _input_samples(stage: Stage, samples: dict[str, int | None]) -> int | None:
    counted = [_count(file, samples) for entry, file in files_of(stage) if entry.key == stage.kind.sized_by]
    known = [count for count in counted if count is not None]
    return sum(known) if counted and len(known) == len(counted) else None


def _samples(stage: Stage, record: Record | None, samples: dict[str, int | None]) -> int | None:
    if record is not None and isinstance(record.result.get("samples"), int):
        return int(record.result["samples"])
    keys = [stage.kind.sized_by] if stage.kind.sized_by else ["table", "tables"]
    if stage.kind.name == "build" and "ids" in stage.body:
        keys = ["ids"]
    counted = [_count(file, samples) for entry, file in files_of(stage) if entry.key in keys]
    if not counted or None in counted:
        return None
    known = [count for count in counted if count is not None]
    return max(known) if keys == ["table", "tables"] else sum(known)


def _count(file: str | ExternalFile | StageOutput, samples: dict[str, int | None]) -> int | None:
    """Samples of a file, at most; None if it does not tell at once."""
    if isinstance(file, StageOutput):
        return samples.get(file.stage)
    path = Path(file.path if isinstance(file, ExternalFile) else file)
    if path.is_dir():
        return sum(len(names) for _, _, names in os.walk(path))
    if path.suffix in (".txt", ".csv", ".tsv"):
        with path.open("rb") as lines:
            return sum(1 for _ in lines)
    return None


def _bytes(stage: Stage, samples: int | None, classes: int | None) -> int:
    kind = stage.kind.outputs[0].type
    if kind == TABLE and samples is not None and classes is not None:
        return samples * (4 * classes + ID_BYTES)
    if kind == DATASET:
        external = [file for entry, file in files_of(stage) if entry.key == "sources"]
        return sum(_size(file) for file in external if not isinstance(file, StageOutput))
    return 0


def _size(file: str | ExternalFile) -> int:
    path = Path(file.path if isinstance(file, ExternalFile) else file)
    if path.is_file():
        return path.stat().st_size
    return sum(
        Path(root, name).stat().st_size
        for root, _, names in os.walk(path)
        for name in names
        if Path(root, name).exists()
    )


def _free(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
