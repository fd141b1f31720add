"""The benchmark's machinery with contestants of our own, and one real round of the conversion."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.tools.bench.conversion import bench_conversion
from fasttrain.tools.bench.measure import Contestant, interleaved, machine_facts, ratio


def contestant(name: str, code: str) -> Contestant:
    return Contestant(name, {"work": "nothing"}, [sys.executable, "-c", code], "images/s")


def test_rounds_are_interleaved_and_summed_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import json; open({!r}, 'a').write({!r}); print('noise'); print(json.dumps({{'value': {}, 'bytes': 5}}))"
    both = [contestant(name, code.format(str(log), name, value)) for name, value in (("a", 30), ("b", 10))]
    outcomes = interleaved(both, rounds=3, timeout_s=30)
    assert log.read_text() == "abbaab"  # the order is rotated
    first = outcomes[0].as_json()
    assert (first["name"], first["median"], first["rounds"], first["bytes"]) == ("a", 30.0, [30.0] * 3, 5)
    assert ratio(outcomes, "a", "b") == {"ours": "a", "theirs": "b", "ratio": 3.0, "min": 3.0, "max": 3.0}
    assert ratio(outcomes, "a", "c") is None


def test_a_contestant_that_fails_is_reported_and_not_run_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    failing = {
        "exits": f"open({str(log)!r}, 'a').write('x'); raise SystemExit('no such thing')",
        "silent": "pass",
        "other": "print('no figures')",
    }
    outcomes = interleaved([contestant(name, code) for name, code in failing.items()], rounds=3, timeout_s=30)
    assert log.read_text() == "x"
    assert [outcome.as_json()["error"] for outcome in outcomes] == [
        "exit code 1: no such thing",
        "ended without printing its figures",
        "ended without printing its figures",
    ]


def test_a_contestant_that_hangs_is_stopped_with_its_workers(tmp_path: Path) -> None:
    note = tmp_path / "worker"
    code = (
        "import subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(str(worker.pid))\n"
        "time.sleep(60)"
    )
    started = time.monotonic()
    (outcome,) = interleaved([contestant("hangs", code)], rounds=2, timeout_s=2)
    assert time.monotonic() - started < 20
    assert outcome.as_json()["error"] == "took longer than 2 s and was stopped"
    worker = int(note.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _runs(worker):
        time.sleep(0.05)
    assert not _runs(worker)


def test_sigterm_ends_the_contestant_as_well(tmp_path: Path) -> None:
    note = tmp_path / "contestant"
    code = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    driver = (
        "import sys; from fasttrain.tools.bench.measure import Contestant, interleaved; "
        f"interleaved([Contestant('hangs', {{}}, [sys.executable, '-c', {code!r}], 'images/s')], 1, 60)"
    )
    harness = subprocess.Popen([sys.executable, "-c", driver])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (note.exists() and note.read_text()):
        time.sleep(0.05)
    harness.terminate()
    assert harness.wait(30) == 128 + signal.SIGTERM
    assert not _runs(int(note.read_text()))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def test_a_real_round_of_the_conversion(colour_tree: Path, tmp_path: Path) -> None:
    result = bench_conversion(
        colour_tree, rounds=1, repeat=2, only=["fasttrain-keep", "fasttrain-jpg"], scratch=tmp_path
    )
    assert result["images"] == 48 and result["ratios"] == []
    assert [entry["name"] for entry in result["results"]] == ["fasttrain-keep", "fasttrain-jpg"]
    for entry in result["results"]:
        assert entry["unit"] == "images/s" and entry["work"] == "convert"
        assert 0 < entry["min"] <= entry["median"] <= entry["max"] and entry["bytes"] > 0
    assert set(machine_facts()) == {"processor", "cores", "memory_gib", "system", "python", "packages"}
    assert not list(tmp_path.iterdir())  # nothing is left in the scratch folder


def test_what_cannot_be_measured(colour_tree: Path) -> None:
    with pytest.raises(ConfigError, match="no contestant is named 'x' here; there are: fasttrain-keep"):
        bench_conversion(colour_tree, only=["x"])
    with pytest.raises(ConfigError, match="gives 3 image files; a benchmark needs 20"):
        bench_conversion(colour_tree, limit=3)
