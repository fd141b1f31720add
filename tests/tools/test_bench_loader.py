"""The loader benchmark: a real round on small images, and contestants that hang, fail or cheat."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.kernels.loading import loading_available
from fasttrain.tools.bench import loader_job
from fasttrain.tools.bench.loader import LoaderBench, bench_loader, curve_of
from fasttrain.tools.bench.loader_job import Entrant, LoaderJob
from fasttrain.tools.bench.page_cache import drop

# 24 images, 5 times, in batches of 8: 4 batches of warm-up, 7 counted, 4 behind them.
SMALL = LoaderBench(size=32, batch_size=8, threads=(1,), rounds=1, repeat=5)

native_only = pytest.mark.skipif(not loading_available(), reason="the native kernels were not built")

OTHERS = """
import sys, time
from pathlib import Path
import torch
from fasttrain.tools.bench.page_cache import resident_bytes

def batches(job, fill):
    while True:
        yield fill(torch.full((job.batch_size, 3, job.size, job.size), 0.0))

def hangs(job):
    print("waiting", file=sys.stderr)
    time.sleep(60)
    yield

def fails(job):
    print("a first line", file=sys.stderr)
    raise OSError("no more\\nimages")

def ends(job):
    yield from (batch for batch, _ in zip(batches(job, lambda zeros: zeros), range(5)))

def zeros(job):
    return batches(job, lambda zeros: zeros)

def endless(job):
    return batches(job, lambda zeros: zeros / 0)

def looks_for_memory(job):
    kept = [path for path in (job.beton, *job.paths()) if resident_bytes(Path(path))]
    raise OSError(f"{job.images} images, {len(job.paths())} files, {len(kept)} in memory")

def bytes_only(job):
    return batches(job, lambda zeros: zeros.byte())
"""


@pytest.fixture
def on_disk(tmp_path: Path) -> None:
    """Skips where files cannot be got out of memory."""
    probe = tmp_path / "probe"
    probe.write_bytes(b"probe")
    try:
        drop([probe])
    except ConfigError as reason:
        pytest.skip(str(reason))
    probe.unlink()


@pytest.fixture
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of contestants that must not win."""
    (tmp_path / "other_loaders.py").write_text(OTHERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["hangs", "fails", "ends", "zeros", "endless", "bytes_only", "looks_for_memory"]
    peers = tuple(Entrant(name, f"other_loaders:{name}", "jpeg", ("train",)) for name in names)
    monkeypatch.setattr(loader_job, "PEERS", (*peers, Entrant("absent", "", "jpeg", ("train",), ("no_such_peer",))))
    return names


def test_a_real_round_beside_a_peer(colour_tree: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, only=("portable", "torchvision-v2"), scratch=tmp_path)
    result = bench_loader(colour_tree, settings)
    json.dumps(result)
    assert result["images"] == 24 and result["mean_bytes"] > 500 and result["batch_size"] == 8
    assert [(entry["name"], entry["work"]) for entry in result["results"]] == [
        ("portable", "train"),
        ("torchvision-v2", "train"),
    ]
    for entry in result["results"]:
        assert "error" not in entry, entry
        assert (entry["unit"], entry["source"], entry["dtype"], entry["threads"]) == ("images/s", "jpeg", "float32", 1)
        assert entry["cache"] == "warm"
        assert 0 < entry["min"] <= entry["median"] <= entry["max"] and entry["first_batch_s"] > 0
        assert entry["peak_bytes"] is None or entry["peak_bytes"] > 0
    assert [(entry["ours"], entry["theirs"], entry["work"], entry["fastest_peer"]) for entry in result["ratios"]] == [
        ("portable", "torchvision-v2", "train", True)
    ]
    assert not list(tmp_path.iterdir())  # nothing is left in the scratch folder


@pytest.mark.thorough
@native_only
def test_the_native_backend_with_and_without_the_index(colour_tree: Path) -> None:
    settings = replace(SMALL, only=("native", "fasttrain-libjpeg"), works=("train", "raw"))
    result = bench_loader(colour_tree, settings)
    rows = {(entry["name"], entry["work"]): entry for entry in result["results"]}
    assert set(rows) == {("native", "train"), ("fasttrain-libjpeg", "train"), ("native", "raw")}
    assert all(entry["median"] > 0 and entry["psnr_mean"] > 35 for entry in rows.values())
    # Otherwise both would have done the same work.
    assert rows["native", "train"]["psnr_mean"] != rows["fasttrain-libjpeg", "train"]["psnr_mean"]


def test_eval_pixels_and_half_precision(colour_tree: Path) -> None:
    settings = replace(SMALL, only=("portable",), works=("eval", "raw"), dtype="float16")
    result = bench_loader(colour_tree, settings)
    assert [(entry["work"], entry["source"], entry["dtype"]) for entry in result["results"]] == [
        ("eval", "jpeg", "float16"),
        ("raw", "raw", "float16"),
    ]
    assert all(entry["median"] > 0 for entry in result["results"]) and result["ratios"] == []


def test_nobody_wins_by_not_working(others: list[str], colour_tree: Path) -> None:
    result = bench_loader(colour_tree, replace(SMALL, only=others[1:6]))
    errors = {entry["name"]: entry["error"] for entry in result["results"]}
    assert errors["fails"] == "exit code 1: OSError: no more images"
    assert "it ended after 5 of 11 batches" in errors["ends"]
    assert "channel 0 of its images has mean 0.00 and standard deviation 0.00" in errors["zeros"]
    assert "its first batch holds values that are not finite" in errors["endless"]
    assert "torch.uint8, and not (8, 3, 32, 32) torch.float32" in errors["bytes_only"]
    assert result["ratios"] == []
    assert [entry for entry in result["missing"] if entry.startswith("absent")] == [
        "absent: no_such_peer is not installed (pip install no_such_peer)"
    ]


@pytest.mark.usefixtures("others", "on_disk")
def test_cold_files_are_not_in_memory_and_nothing_is_read_twice(colour_tree: Path, tmp_path: Path) -> None:
    settings = replace(SMALL, only=["portable", "looks_for_memory"], cold=True, rounds=2, scratch=tmp_path)
    result = bench_loader(colour_tree, settings)
    ours, looking = result["results"]
    assert looking["error"] == "exit code 1: OSError: 120 images, 120 files, 0 in memory"
    assert ours["cache"] == "cold" and ours["median"] > 0 and result["images"] == 120


@pytest.mark.usefixtures("on_disk")
def test_cold_files_want_room(colour_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        ConfigError, match=r"120 images of which none is read twice take 0\.0 GB, but .* has 1\.0 GB free"
    ):
        bench_loader(colour_tree, replace(SMALL, only=["portable"], cold=True, scratch=tmp_path))


@pytest.mark.usefixtures("others")
def test_one_that_hangs_is_stopped(colour_tree: Path) -> None:
    result = bench_loader(colour_tree, replace(SMALL, only=["hangs"], rounds=2, timeout_s=1.0))
    assert result["results"][0]["error"] == "took longer than 1 s and was stopped"


def test_each_contestant_that_is_installed_can_be_imported() -> None:
    for entrant in loader_job.choose(loader_job.entrants(["portable"]), ()):
        module, _, _ = entrant.function.partition(":")
        assert importlib.util.find_spec(module) is not None
        assert entrant.ours or entrant.source in ("jpeg", "jpeg-ffcv", "raw")


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = LoaderJob(
        "m:f", "eval", 224, (0.08, 1.0), "float32", 8, 1, 4, 7, 5, 24, "f", "t", "b", "j", (0.0,) * 3, (1.0,) * 3
    )
    job.write(tmp_path / "job.json")
    assert LoaderJob.read(tmp_path / "job.json") == job
    assert job.short_side == 256 and not job.train


def test_numbers_of_workers() -> None:
    assert [curve_of(most) for most in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"works": ("test",)}, "there is no work 'test'; choose of train, eval, raw"),
        ({"dtype": "int8"}, "there is no dtype 'int8'"),
        ({"backends": ("x",)}, "there is no backend 'x'; choose of .*portable"),
        ({"scale": (1.0, 0.5)}, "the smaller one first"),
        ({"only": ("x",)}, "no contestant is named 'x' here; there are: .*torchvision-v1"),
        ({"only": ("torchvision-v1",), "works": ("raw",)}, "no chosen contestant does the work 'raw'"),
        ({"only": ("portable",), "repeat": 1}, "24 images, 1 times, are too few batches of 8: use a larger --repeat"),
    ],
)
def test_what_cannot_be_measured(settings: dict[str, object], message: str, colour_tree: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_loader(colour_tree, replace(SMALL, **settings))  # type: ignore[arg-type]


def test_a_peer_that_is_named_must_be_installed(others: list[str], colour_tree: Path) -> None:
    with pytest.raises(ConfigError, match="absent takes no part: no_such_peer is not installed"):
        bench_loader(colour_tree, replace(SMALL, only=["absent"]))
