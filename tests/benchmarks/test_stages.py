"""The benchmark of the loader's stages: its program compiles, its parts run, its sums are right."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fasttrain.kernels.loading import loading_available
from fasttrain.loading.loader import Loader
from fasttrain.loading.views import train_view
from fasttrain.tools.bench.loader_data import choose_samples, write_beton

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"
pytestmark = pytest.mark.skipif(not loading_available(), reason="the native kernels were not built")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import stages

    return stages


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import python_stages

    return python_stages


@pytest.fixture
def photos(colour_tree: Path, tmp_path: Path) -> Path:
    write_beton(choose_samples(colour_tree, 24), tmp_path / "photos.beton", raw=False, workers=1)
    return tmp_path / "photos.beton"


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_the_program_fits_the_kernels() -> None:
    sources = sorted(map(str, (BENCHMARKS / "native").glob("*.cpp")))
    command = ["c++", "-fsyntax-only", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", "kernels/native", *sources]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_plan_is_that_of_the_loaders_first_epoch(parts: ModuleType, photos: Path, tmp_path: Path) -> None:
    parts.write_plan(photos, 32, tmp_path / "plan.txt")
    head, size, *lines = (tmp_path / "plan.txt").read_text().splitlines()
    assert (head, size) == (str(photos), "32")
    plan = np.array([line.split() for line in lines], np.int64)
    assert plan.shape == (24, 9)
    with Loader(photos, parts.batch_of(24), view=train_view(32), seed=parts.SEED) as loader:
        rows = np.concatenate([batch.ids.numpy() for batch in loader])
        sources = loader.dataset.stored(rows)
    assert np.array_equal(plan[:, 0], sources.offsets) and np.array_equal(plan[:, 1], sources.lengths)
    assert (plan[:, 4:6] + plan[:, 6:8] <= plan[:, 2:4]).all()  # boxes lie within their images


def test_passes_and_hand_overs_are_timed(
    parts: ModuleType, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate, work_us = parts.loader_pass(photos, 24, 32, 1, parts.usable_simd()[-1])
    assert rate > 0 and work_us > 0
    monkeypatch.setattr(parts, "PIXEL_IMAGES", 3 * parts.BATCH)
    figures = parts.hand_over_us(parts.write_pixels(tmp_path))
    names = {"planning", "submit", "result", "device_stage", "loader", "loader_work", "queue"}
    assert set(figures) == names and min(figures.values()) > 0


@pytest.mark.parametrize(("images", "batch"), [(1, 1), (256, 256), (257, 128), (500, 250), (1000, 250)])
def test_hardly_an_image_is_left_out(parts: ModuleType, images: int, batch: int) -> None:
    assert parts.batch_of(images) == batch and images % batch <= 1


def test_figures(stages: ModuleType) -> None:
    found = defaultdict(list)
    found["resample_uint8_us", "avx2"] = [100.0, 110.0]
    found["resample_float32_us", "avx2"] = [105.0, 108.0]
    found["stream_float32_us", stages.ANY] = [6.0, 7.0]
    stage = next(stage for stage in stages.STAGES if stage.name == "store as float32, beyond uint8")
    (entry,) = stages.stage_entries(stage, found, ["avx2"], 2)
    assert entry["simd"] == "avx2" and entry["rounds"] == [5.0, -2.0] and entry["median"] == 1.5
    assert list(entry["floors"].values()) == [{"median": 6.5, "min": 6.0, "max": 7.0}]

    found["read_again_us", stages.ANY] = [10.0, 10.0]
    found["indexed_open_us", stages.ANY], found["indexed_plan_us", stages.ANY] = [50.0, 50.0], [30.0, 30.0]
    found["indexed_float32_normalised_us", "avx2"] = [900.0, 900.0]
    found["hand_over_loader_work", stages.ANY] = [10.0 * stages.BATCH, 10.0 * stages.BATCH]
    found["loader_2", "avx2"], found["loader_cpu_2", "avx2"] = [1600.0, 1600.0], [1200.0, 1200.0]
    total = stages.total_entry(found, "avx2", 2, 2)
    assert total["sum_us"]["median"] == 1000 and total["sum_images_per_s"]["median"] == 2000
    assert total["unexplained_us"]["median"] == 200 and total["waiting_us"]["median"] == 50
