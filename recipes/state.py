"""A work folder: what each stage wrote, and the record that it is complete.

    OUT/stages/train,round=1/          outputs, log.txt, stage.json: appears under this name when all of it is complete
    OUT/stages/train,round=1.part/     the same while the stage runs, or after it failed or was interrupted
    OUT/hashes.json                    contents of files that are known already

The record is written into the unfinished folder last; one rename then publishes outputs and record together.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from fasttrain.base.atomic import atomic_open, publish
from fasttrain.base.errors import ConfigError
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.hashing import ContentHashes
from fasttrain.recipes.references import StageOutput

RECORD, ATTEMPT, LOG, STDOUT = "stage.json", "attempt.json", "log.txt", "stdout.txt"
STAGES, HASHES = "stages", "hashes.json"
PART, OLD, LOCK = ".part", ".old", ".lock"


@dataclass(frozen=True)
class Record:
    """What is kept of a finished stage.

    Attributes:
        key: hash of what it depends on.
        outputs: of each output, {file, type, hash, bytes}.
        inputs: content hash of each output of others that it took.
        settings: its body, as JSON.
        command: as it was run.
        result: the JSON object that the command printed.
        seconds: of all attempts together, but for those that were killed.
        attempts: how often it was started.
        finished: when, as text.
    """

    stage: str
    kind: str
    key: str
    outputs: dict[str, dict[str, Any]]
    inputs: dict[str, str]
    settings: dict[str, Any]
    command: list[str]
    result: dict[str, Any]
    seconds: float
    attempts: int
    finished: str
    host: str = ""


@dataclass
class Attempt:
    """An unfinished stage."""

    key: str
    seconds: float = 0.0
    attempts: int = 0
    interrupted: bool = field(default=False)


class WorkFolder:
    """Where a recipe is worked on."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.hashes = ContentHashes(self.path / HASHES)

    def final(self, stage: Stage) -> Path:
        """Folder of a finished stage."""
        return self.path / STAGES / stage.folder

    def part(self, stage: Stage) -> Path:
        """Folder of an unfinished stage."""
        final = self.final(stage)
        return final.with_name(final.name + PART)

    def output(self, stage: Stage, name: str) -> Path:
        """Path of an output."""
        return self.final(stage) / stage.kind.outputs_of(stage.body)[name].file_of(stage.body)

    def record(self, stage: Stage) -> Record | None:
        """The record of a stage, None where there is none that can be read or an output is gone."""
        record = _read_record(self.final(stage))
        if record is None or record.stage != stage.name:
            return None
        folder = self.final(stage)
        return record if all(_is_whole(folder / out["file"], out) for out in record.outputs.values()) else None

    def hash_of(self, record: Record, output: StageOutput) -> str:
        """Content hash of a finished stage's output."""
        return str(record.outputs[output.output]["hash"])

    # --- an attempt -------------------------------------------------------------------------------------------------

    def recover(self, stage: Stage) -> None:
        """Finish what a killed process had begun to publish."""
        final, part, old = self.final(stage), self.part(stage), _old(self.final(stage))
        if (part / RECORD).exists() and _read_record(part) is not None:
            self._replace(part, final)
        elif old.exists() and not final.exists():
            old.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def begin(self, stage: Stage, key: str, again: bool = False) -> Attempt:
        """Prepare the folder of an unfinished stage; what an attempt at the same thing left there stays, if its
        command can go on with it.

        Args:
            again: begin anew whatever is there.
        """
        part = self.part(stage)
        before = _read_attempt(part)
        goes_on = before is not None and before.key == key and stage.kind.resume is not None and not again
        if part.exists() and not goes_on:
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        attempt = before if before is not None and goes_on else Attempt(key)
        attempt.attempts += 1
        self.note(stage, attempt)
        return attempt

    def note(self, stage: Stage, attempt: Attempt) -> None:
        """Keep what is known of an attempt."""
        with atomic_open(self.part(stage) / ATTEMPT) as file:
            json.dump(asdict(attempt), file)

    def finish(self, stage: Stage, record: Record) -> None:
        """Write the record and publish the stage."""
        part = self.part(stage)
        (part / ATTEMPT).unlink(missing_ok=True)
        (part / STDOUT).unlink(missing_ok=True)
        with atomic_open(part / RECORD) as file:
            json.dump(asdict(record), file, indent=2, default=str)
            file.write("\n")
        self._replace(part, self.final(stage))

    def _replace(self, part: Path, final: Path) -> None:
        old = _old(final)
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        publish(part, final)
        shutil.rmtree(old, ignore_errors=True)

    def measured(self, stage: Stage, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """{file, type, hash, bytes} of each output of an unfinished stage.

        Raises:
            ConfigError: the command did not write one.
        """
        found = {}
        part = self.part(stage)
        for output in stage.kind.outputs_of(stage.body).values():
            name = output.file_of(stage.body)
            if not (part / name).exists():
                raise ConfigError(f"stage {stage.name}: its command wrote no {name} (it said {json.dumps(result)})")
            size = (part / name).stat().st_size
            found[output.name] = {
                "file": name,
                "type": output.type_of(stage.body),
                "hash": self._hash_of_output(part / name),
                "bytes": size,
            }
        return found

    def _hash_of_output(self, path: Path) -> str:
        """Content hash of a file; of a run's folder, of the weights in it; of another folder, of all that it holds."""
        if not path.is_dir():
            return self.hashes.of(path)
        weights = sorted(path.glob("*.safetensors"))
        held = weights or sorted(file for file in path.rglob("*") if file.is_file())
        told = "".join(f"{file.relative_to(path)} {self.hashes.of(file)}\n" for file in held)
        return xxhash.xxh3_128_hexdigest(told.encode())

    @contextmanager
    def locked(self, stage: Stage) -> Iterator[bool]:
        """Hold the stage for this process while the block runs; False where another one has it.

        The lock is free again when its process is gone, however it ended.
        """
        final = self.final(stage)
        final.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(final.with_name(f".{final.name}{LOCK}"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def now() -> str:
    """The time as text."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _old(final: Path) -> Path:
    return final.with_name(final.name + OLD)


def _is_whole(path: Path, output: dict[str, Any]) -> bool:
    try:
        return path.is_dir() or bool(path.stat().st_size == output["bytes"])
    except OSError:
        return False


def _read_record(folder: Path) -> Record | None:
    values = _read_json(folder / RECORD)
    try:
        return Record(**values)
    except TypeError:
        return None


def _read_attempt(folder: Path) -> Attempt | None:
    values = _read_json(folder / ATTEMPT)
    try:
        return Attempt(**values)
    except TypeError:
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
