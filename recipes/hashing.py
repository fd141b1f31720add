"""What a stage's result depends on, as one hash: the contents of its inputs, its settings, the kind's version."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from fasttrain.base.atomic import atomic_open
from fasttrain.base.config import read_config
from fasttrain.recipes.graph import Stage
from fasttrain.recipes.load import merge
from fasttrain.recipes.references import ExternalFile, StageOutput

FORMAT = 1
BLOCK = 1 << 22
# How much of the machine is used, and who is told; the result does not depend on it.
NEUTRAL = frozenset({"threads", "workers", "checkpoint_minutes", "trackers", "memory_budget", "resident"})


class ContentHashes:
    """Hashes of files by content, remembered by path, size and time of change.

    Folders count by the names, sizes and times of what is in them: their images may be many terabytes.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self.memory = memory
        self._known: dict[str, list[Any]] = _read_memory(memory)

    def of(self, path: str | Path) -> str:
        """Hash of a file or folder."""
        path = Path(path)
        return _hash_folder(path) if path.is_dir() else self._of_file(path)

    def _of_file(self, path: Path) -> str:
        state = path.stat()
        mark = [state.st_size, state.st_mtime_ns]
        key = str(path.absolute())
        remembered = self._known.get(key)
        if remembered is not None and remembered[:2] == mark:
            return str(remembered[2])
        digest = xxhash.xxh3_128()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        self._known[key] = [*mark, digest.hexdigest()]
        return digest.hexdigest()

    def save(self) -> None:
        """Keep what was found out for the next run."""
        if self.memory is not None:
            with atomic_open(self.memory) as file:
                json.dump(self._known, file)


def stage_key(
    stage: Stage, processes: int, hash_of_output: Callable[[StageOutput], str], contents: ContentHashes
) -> str:
    """32 hexadecimal digits that change with everything that the stage's result depends on.

    Args:
        processes: of the whole stage, over all machines.
        hash_of_output: of another stage's output.
    """

    def described(value: Any) -> Any:
        if isinstance(value, StageOutput):
            return {"content": hash_of_output(value)}
        if isinstance(value, ExternalFile):
            return {"content": contents.of(value.path)}
        if isinstance(value, dict):
            return {str(key): described(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [described(entry) for entry in value]
        if isinstance(value, str) and _is_path(value):
            return {"content": contents.of(value)}
        return value

    body = dict(stage.body)
    if stage.kind.takes_settings and "config" in body:
        body = merge(read_config(body.pop("config")), body)
    facts = {
        "format": FORMAT,
        "kind": stage.kind.name,
        "version": stage.kind.version,
        "processes": processes if stage.kind.counts_processes else None,
        "body": described({key: value for key, value in body.items() if key not in NEUTRAL}),
        "defaults": stage.kind.defaults(stage.body),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _is_path(text: str) -> bool:
    try:
        return os.path.isfile(text) or (os.sep in text and os.path.exists(text))
    except ValueError:  # a null character
        return False


def _hash_folder(folder: Path) -> str:
    digest = xxhash.xxh3_128()
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            try:
                state = path.stat()
            except OSError:
                continue
            relative = os.fsencode(path.relative_to(folder))
            digest.update(relative + f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_memory(memory: Path | None) -> dict[str, list[Any]]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8")) if memory is not None else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
