"""A build that is interrupted, at any point and in any way, goes on and ends in the same bytes."""

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fasttrain.base.errors import BetonError, SourceError
from fasttrain.beton_build import build as building
from fasttrain.beton_build.build import build
from fasttrain.beton_build.journal import Journal, Record, journal_path
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.beton_build.verify import verify

DRIVER = Path(__file__).with_name("kill_driver.py")


@pytest.mark.parametrize("output_format", ["beton", pytest.param("webdataset", marks=pytest.mark.thorough)])
def test_killed_at_every_touch_of_the_disk(tree: Path, tmp_path: Path, output_format: str) -> None:
    (tree / "cat" / "00.jpg").write_bytes(b"garbage")  # skipped; the list of it must survive as well
    for name in ("dog/02.webp", "dog/03.jpg", "emu/01.png", "cat/03.jpg", "cat/04.png", "cat/05.webp"):
        (tree / name).unlink()
    command = [sys.executable, str(DRIVER), str(tree), str(tmp_path / "work"), output_format]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout)
    assert outcome["failures"] == []
    assert outcome["points"] > 50


@pytest.fixture
def interrupted(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a build that Ctrl-C ended after some samples."""
    out = tmp_path / "a.beton"
    monkeypatch.setattr(building, "COMMIT_EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        real, calls = building.prepare_one, iter(range(100))

        def interrupting(*args: object) -> object:
            if next(calls) == 7:
                raise KeyboardInterrupt
            return real(*args)  # type: ignore[arg-type]

        patch.setattr(building, "prepare_one", interrupting)
        with pytest.raises(KeyboardInterrupt):
            build(read_source(tree), out, BuildOptions(workers=1))
    assert not out.exists() and journal_path(out).exists() and out.with_name("a.beton.part").exists()
    return out


def test_an_interrupted_build_goes_on(tree: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = build(read_source(tree), interrupted, BuildOptions(resume=True))
    assert report.samples == 12 and sum(report.changes[what] for what in ("kept", "re-encoded")) == 12
    assert "going on after" in capsys.readouterr().err
    build(read_source(tree), interrupted.with_name("b.beton"))
    assert interrupted.read_bytes() == interrupted.with_name("b.beton").read_bytes()
    assert sorted(path.name for path in interrupted.parent.iterdir() if path.is_file()) == ["a.beton", "b.beton"]
    again = build(read_source(tree), interrupted, BuildOptions(resume=True))  # complete already: nothing to do
    assert again.samples == 12


def test_an_interrupted_build_is_not_overwritten(tree: Path, interrupted: Path) -> None:
    with pytest.raises(SourceError, match=r"was interrupted: go on with --resume, or start anew with --force"):
        build(read_source(tree), interrupted)
    with pytest.raises(SourceError, match="had other options"):
        build(read_source(tree), interrupted, BuildOptions(resume=True, quality=50))
    (tree / "cat" / "new.jpg").write_bytes((tree / "cat" / "00.jpg").read_bytes())
    with pytest.raises(SourceError, match="had other samples"):
        build(read_source(tree), interrupted, BuildOptions(resume=True))
    assert build(read_source(tree), interrupted, BuildOptions(force=True)).samples == 13
    assert verify(interrupted).ok


def test_a_lost_part_means_starting_anew(tree: Path, interrupted: Path) -> None:
    interrupted.with_name("a.beton.part").unlink()
    assert build(read_source(tree), interrupted, BuildOptions(resume=True)).samples == 12
    assert verify(interrupted).ok


def test_a_part_that_lost_something_is_not_gone_on_with(tree: Path, interrupted: Path) -> None:
    part = interrupted.with_name("a.beton.part")
    os.truncate(part, part.stat().st_size - 100)
    with pytest.raises(BetonError, match=r"is shorter than it was when the build was interrupted.*; build again"):
        build(read_source(tree), interrupted, BuildOptions(resume=True))
    assert not part.exists() and not journal_path(interrupted).exists()
    assert build(read_source(tree), interrupted).samples == 12


def test_two_builds_of_one_file_at_a_time(tree: Path, interrupted: Path) -> None:
    with journal_path(interrupted).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(SourceError, match="another process is building"):
            build(read_source(tree), interrupted, BuildOptions(resume=True))


def test_resuming_what_never_began_begins(tree: Path, tmp_path: Path) -> None:
    assert build(read_source(tree), tmp_path / "a.beton", BuildOptions(resume=True)).samples == 12
    with pytest.raises(SourceError, match="already exists"):  # another build made it
        build(read_source(tree), tmp_path / "a.beton", BuildOptions(resume=True, mode="raw"))


def test_a_torn_record_is_as_if_not_written(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    journal = Journal(path)
    journal.begin({"who": "me"})
    journal.append(Record({"next": 1}, [b"abc", b""]))
    length = path.stat().st_size
    journal.append(Record({"next": 2}, [b"def", b"g"]))
    journal.close()
    whole = path.read_bytes()
    for cut in range(length, len(whole)):
        path.write_bytes(whole[:cut])
        again = Journal(path)
        assert again.identity == {"who": "me", "blobs": []} or again.identity == {"who": "me"}
        assert again.records == [Record({"next": 1}, [b"abc", b""])]
        again.close()
        assert path.stat().st_size == length


def raw_build(source: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "fasttrain.cli.app", "build", str(source), str(out), "--mode", "raw"]


def test_a_full_disk_is_one_sentence_and_can_be_resumed(tree: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the same place."""
    limit = 2_150_000  # the first page of 2 MiB is the head; what follows breaks off

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = raw_build(tree, tmp_path / "a.beton")
    failed = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert "a.beton cannot be written: File too large; make room" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "a.beton").exists()
    subprocess.run([*command, "--resume"], check=True, capture_output=True, timeout=60)
    assert verify(tmp_path / "a.beton").ok


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(tree: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        command = raw_build(tree, disk / "a.beton")
        failed = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert failed.returncode == 1
        assert "cannot be written: No space left on device; make room" in failed.stderr.splitlines()[-1]
        assert not (disk / "a.beton").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        subprocess.run([*command, "--resume"], check=True, capture_output=True, timeout=60)
        assert verify(disk / "a.beton").ok
    finally:
        subprocess.run(["umount", str(disk)], check=True)
