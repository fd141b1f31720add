"""The fuzz study of the indexed decoder: what it does without clang, around the target and with its findings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fasttrain.kernels.indexed import IndexedReader
from fasttrain.kernels.loading import loading_available

STUDIES = Path(__file__).resolve().parents[2] / "benchmarks" / "studies"
TARGET = STUDIES.parent / "native" / "fuzz_indexed.cpp"
needs_native = pytest.mark.skipif(not loading_available(), reason="the native kernels were not built")

# In place of the target: what libFuzzer prints, for an input that it leaves behind.
CALM = """#!/bin/sh
echo "#2 INITED cov: 40 ft: 50 corp: 1/1b exec/s: 0 rss: 30Mb"
echo "#900 DONE   cov: 123 ft: 456 corp: 7/8Kb lim: 9 exec/s: 90 rss: 40Mb"
echo "stat::number_of_executed_units: 901"
"""
FINDING = """#!/bin/sh
for argument; do case $argument in -artifact_prefix=*) prefix=${argument#-artifact_prefix=};; esac; done
printf 'abc' > "${prefix}crash-1"
echo "#700 NEW    cov: 99 ft: 100 corp: 7/8Kb lim: 9 exec/s: 90 rss: 40Mb"
echo "==12==ERROR: AddressSanitizer: heap-buffer-overflow on address 0xabc at pc 0xdef"
echo "    #1 0x123 in fasttrain::IndexedScan::enter(int) scan.cpp:3"
exit 77
"""


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(STUDIES))
    import fuzz_indexed

    monkeypatch.setattr(fuzz_indexed, "RESULTS", tmp_path / "results" / "fuzz_indexed.json")
    monkeypatch.setattr(fuzz_indexed, "BUILD", tmp_path / "build")
    monkeypatch.setattr(fuzz_indexed, "compiler", lambda: "clang++")
    monkeypatch.setattr(fuzz_indexed, "compiler_version", lambda clang: "clang 14")
    return fuzz_indexed


def program(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "target"
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(study: ModuleType, monkeypatch: pytest.MonkeyPatch, target: Path, *arguments: str) -> int:
    monkeypatch.setattr(study, "built", lambda clang: target)
    monkeypatch.setattr(sys, "argv", ["fuzz_indexed.py", "--corpus", str(target.parent / "corpus"), *arguments])
    return int(study.main())


def test_without_clang_it_says_what_to_install(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    environment.pop("CXX", None)
    done = subprocess.run(
        [sys.executable, STUDIES / "fuzz_indexed.py"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "no clang++" in done.stderr and "apt-get install clang-14" in done.stderr


@needs_native
def test_slices_add_up_and_go_on(study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calm = program(tmp_path, CALM)
    monkeypatch.setattr(study.time, "monotonic", iter(range(0, 10**6, 15)).__next__)  # a slice takes 15 s
    assert run(study, monkeypatch, calm, "--minutes", "0.5") == 0
    result = json.loads(study.RESULTS.read_text())
    assert (result["seconds"], result["executions"], result["edges"], result["features"]) == (30, 1802, 123, 456)
    assert result["findings"] == [] and result["corpus"] > 20
    run(study, monkeypatch, calm, "--minutes", "0.25")
    assert json.loads(study.RESULTS.read_text())["seconds"] == 45
    monkeypatch.setattr(study, "compiler_version", lambda clang: "clang 15")
    with pytest.raises(SystemExit, match="other sources or tools"):
        run(study, monkeypatch, calm, "--minutes", "0.25")


@needs_native
def test_findings_are_kept_and_end_the_study_when_they_repeat(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(study, monkeypatch, program(tmp_path, FINDING)) == 1
    result = json.loads(study.RESULTS.read_text())
    assert len(result["findings"]) == study.MAX_ALIKE
    finding = result["findings"][0]
    assert "heap-buffer-overflow" in finding["what"] and "IndexedScan::enter" in finding["what"]
    assert (finding["name"], finding["bytes"], finding["input"]) == ("crash-1", 3, "YWJj")
    assert (study.BUILD / "findings" / "crash-1").read_bytes() == b"abc"


@needs_native
def test_the_corpus_holds_sound_images_with_their_indices(study: ModuleType, tmp_path: Path) -> None:
    study.plant(tmp_path / "corpus", None)
    inputs = [path.read_bytes() for path in (tmp_path / "corpus").iterdir()]
    assert len(inputs) > 20 and max(map(len, inputs)) <= study.MAX_INPUT
    for data in inputs:
        entries = data[study.CONTROLS - 2] | data[study.CONTROLS - 1] << 8
        index = np.frombuffer(data, "<u8", entries, len(data) - 8 * entries)
        stream = data[study.CONTROLS : len(data) - 8 * entries]
        assert IndexedReader().planes(stream, index, (0, 0, 1, 1))


def test_inputs_are_laid_out_as_the_target_reads_them(study: ModuleType) -> None:
    source = TARGET.read_text()
    numbers = {name: int(value) for name, value in re.findall(r"constexpr \S+ (kViews|kViewControls) = (\d+);", source)}
    assert "kControls = 4 + kViews * kViewControls + 4 + 2;" in source
    assert 4 + numbers["kViews"] * numbers["kViewControls"] + 4 + 2 == study.CONTROLS
