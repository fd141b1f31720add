"""Tar archives and their index files: read back by tarfile, by our own reader, and by DALI where it is installed."""

import importlib.util
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from fasttrain.base.errors import SourceError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.origins import read_origin
from fasttrain.beton_build.reader import BetonReader
from fasttrain.beton_build.sources import read_source

WEBDATASET = {"format": "webdataset", "tar_bytes": 6000}


@pytest.fixture
def archives(tree: Path, tmp_path: Path) -> Path:
    report = build(read_source(tree), tmp_path / "out", BuildOptions.model_validate(WEBDATASET))
    assert report.samples == 12 and report.bytes > 0
    return tmp_path / "out"


def test_archives_and_their_index(tree: Path, archives: Path, tmp_path: Path) -> None:
    description = json.loads((archives / "dataset.json").read_text())
    assert description["samples"] == 12 and description["class_names"] == ["cat", "dog", "emu"]
    assert (
        len(description["archives"]) > 2 and not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.journal"))
    )
    build(read_source(tree), tmp_path / "same.beton")
    seen = 0
    with BetonReader(tmp_path / "same.beton") as expected:
        for entry in description["archives"]:
            archive = archives / entry["name"]
            with tarfile.open(archive) as tar:
                members = {member.name: (member.offset_data, member.size) for member in tar}
            lines = archive.with_suffix(".idx").read_text().splitlines()
            assert lines[0] == f"v1.2 {entry['samples']}" and len(lines) == entry["samples"] + 1
            data = archive.read_bytes()
            for line in lines[1:]:
                words = line.split()
                found = {}
                for suffix, offset, size, name in zip(*[iter(words)] * 4, strict=True):
                    assert members.pop(name) == (int(offset), int(size)) and name == f"{seen:09d}.{suffix}"
                    found[suffix] = data[int(offset) : int(offset) + int(size)]
                assert found["jpg"] == bytes(expected.image_bytes(seen))
                assert int(found["cls"]) == expected.labels[seen]
                name = description["class_names"][expected.labels[seen]]
                assert json.loads(found["json"]) == {"id": expected.ids[seen], "label_name": name}
                seen += 1
            assert not members
    assert seen == 12


def test_they_are_a_source_again(tree: Path, archives: Path) -> None:
    before, after = read_source(tree), read_source(archives)
    assert after.ids == before.ids and after.class_names == before.class_names
    assert after.labels.tolist() == before.labels.tolist()
    kept = [row for row, origin in enumerate(before.origins) if str(origin).endswith(".jpg")]
    assert all(read_origin(after.origins[row]) == read_origin(before.origins[row]) for row in kept)


def test_what_may_be_replaced(tree: Path, archives: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="already exists; give --force"):
        build(read_source(tree), archives, BuildOptions.model_validate(WEBDATASET))
    build(read_source(tree), archives, BuildOptions.model_validate({**WEBDATASET, "force": True}))
    with pytest.raises(SourceError, match="is not a folder of tar archives that a build made"):
        build(read_source(tree), tree, BuildOptions.model_validate({**WEBDATASET, "force": True}))
    with pytest.raises(SourceError, match="choose --mode keep or jpg, not raw"):
        build(read_source(tree), tmp_path / "x", BuildOptions.model_validate({**WEBDATASET, "mode": "raw"}))


DALI_SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from nvidia.dali import fn, pipeline_def, types
folder = Path(sys.argv[1])
@pipeline_def(batch_size=4, num_threads=1, device_id=None)
def pipe():
    jpg, label, about = fn.readers.webdataset(paths=[str(p) for p in sorted(folder.glob("*.tar"))],
        index_paths=[str(p) for p in sorted(folder.glob("*.idx"))], ext=["jpg", "cls", "json"], name="reader")
    return fn.decoders.image(jpg, output_type=types.RGB), label, about
built = pipe()
built.build()
rows = []
while len(rows) < built.epoch_size("reader"):
    images, labels, abouts = built.run()
    rows += [[json.loads(bytes(np.array(abouts.at(k))))["id"], int(bytes(np.array(labels.at(k))))] for k in range(4)]
    assert all(images.at(k).shape[2] == 3 for k in range(4))
print(json.dumps(rows[:built.epoch_size("reader")]))
"""


def has_dali() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(not has_dali(), reason="DALI is not installed (pip install 'fasttrain[dali]')")
def test_dali_reads_them(tree: Path, archives: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DALI_SCRIPT, str(archives)], check=True, capture_output=True, text=True, timeout=120
    )
    samples = read_source(tree)
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [row[0] for row in rows] == samples.ids
    assert [row[1] for row in rows] == samples.labels.tolist()
