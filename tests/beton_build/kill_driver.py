"""Kills a build at every point where it touches the disk, goes on with it, and compares with an undisturbed one.

A script of its own, run by test_resume.py: it forks for each build, which a process with threads should not do.

    python kill_driver.py SOURCE WORK FORMAT

Prints one JSON object: how many points there were, and what went wrong at which of them.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fasttrain.beton_build import build as building
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source

building.COMMIT_EVERY_S = 0.0  # a commit after every sample


class Fuse:
    """Counts what is done to the disk, before and after each call, and kills the process at one of these points."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def burn(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.burn()
            result = function(*args, **kwargs)
            self.burn()
            return result

        return wrapped


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(source: Path, out: Path, output_format: str, fuse: Fuse | None, resume: bool) -> None:
    if fuse is not None:
        os.fsync, os.pwrite = fuse.around(os.fsync), fuse.around(os.pwrite)
        for name in ("replace", "unlink", "rename"):
            setattr(Path, name, fuse.around(getattr(Path, name)))
    options = {
        "format": output_format,
        "on_error": "skip",
        "workers": 2,
        "val_fraction": 0.3,
        "tar_bytes": 10_000,
        "resume": resume,
    }
    building.build(read_source(source), out, BuildOptions.model_validate(options))
    if fuse is not None:
        Path(f"{out}.events").write_text(str(fuse.count))


def content(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check_published(folder: Path, output_format: str) -> str | None:
    """What is there under its final name after a kill must be complete."""
    for name in ("a", "a_val"):
        if output_format == "beton" and (folder / f"{name}.beton").exists():
            with BetonReader(folder / f"{name}.beton") as reader:
                reader.check_structure()
        if output_format == "webdataset" and (folder / name).exists() and not (folder / name / "dataset.json").exists():
            return f"{name} is incomplete"
    return None


def main() -> None:
    source, work, output_format = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    name = "a.beton" if output_format == "beton" else "a"
    clean = work / "clean"
    assert in_child(lambda: run(source, clean / name, output_format, Fuse(0), resume=False)) == 0
    points = int((clean / f"{name}.events").read_text())
    (clean / f"{name}.events").unlink()
    expected = content(clean)
    failures = []
    for at in range(1, points + 1):
        folder = work / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        killed = in_child(lambda: run(source, folder / name, output_format, Fuse(at), resume=False))  # noqa: B023
        wrong = check_published(folder, output_format) if folder.exists() else None
        resumed = in_child(lambda: run(source, folder / name, output_format, None, resume=True))  # noqa: B023
        if killed != -signal.SIGKILL or resumed != 0 or wrong or content(folder) != expected:
            files = {name: len(data) for name, data in content(folder).items()}
            failures.append({"point": at, "killed": killed, "resumed": resumed, "wrong": wrong, "files": files})
    failures += killed_at_random(source, work / "random", name, output_format, expected)
    print(json.dumps({"points": points, "failures": failures}))


def killed_at_random(
    source: Path, folder: Path, name: str, output_format: str, expected: dict[str, bytes]
) -> list[dict[str, Any]]:
    """Kill the build, and then each attempt to go on with it, at random times; 20 kills in all."""
    rng, failures, kills = random.Random(0), [], 0
    while kills < 20:
        shutil.rmtree(folder, ignore_errors=True)
        while True:
            child = os.fork()
            if child == 0:
                run(source, folder / name, output_format, None, resume=folder.exists())
                os._exit(0)
            time.sleep(rng.uniform(0, 0.08))
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            kills += code == -signal.SIGKILL
            if code == 0 or kills >= 20:
                break
        if (
            in_child(lambda: run(source, folder / name, output_format, None, resume=True))
            or content(folder) != expected
        ):
            failures.append({"point": "random", "files": sorted(content(folder))})
    return failures


if __name__ == "__main__":
    main()
