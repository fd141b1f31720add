"""`fasttrain doctor`: what is installed, and what a training waits for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, TrainingError
from fasttrain.beton_build.build import build
from fasttrain.beton_build.options import BuildOptions
from fasttrain.beton_build.sources import read_source
from fasttrain.kernels.jpeg import native_available
from fasttrain.loading import optional
from fasttrain.loading.loader import Loader
from fasttrain.tools.doctor.advice import Situation, advise
from fasttrain.tools.doctor.bottleneck import Speeds, find_bottleneck
from fasttrain.tools.doctor.installed import examine, optional_parts
from fasttrain.training.settings import TrainSettings

native_only = pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
WELL = Situation(
    bottleneck="loader",
    device="cuda",
    amp="bf16",
    backend="native",
    threads=8,
    budget=True,
    cores=8,
    is_beton=True,
    pixels_per_view=4.0,
    portable_share=0.0,
)


def test_what_is_installed_is_told() -> None:
    facts = examine()
    assert set(facts) == {"versions", "machine", "gpus", "codecs", "parts", "backends"}
    assert facts["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert facts["machine"]["cores"] >= 1
    assert len(facts["gpus"]) == torch.cuda.device_count()
    assert (facts["codecs"]["native"] is not None) == (facts["codecs"]["simd"] is not None) == native_available()
    assert "jpeg" in facts["codecs"]["pillow"]
    assert facts["backends"][0] in ("native", "portable")


def test_what_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "_found", lambda module: False)
    parts = {part.name: part for part in optional_parts()}
    assert list(parts) == [
        "native kernels",
        "NVIDIA DALI",
        "FFCV",
        "CUDA",
        "Triton",
        "cleanlab",
        "segmentation-models-pytorch",
    ]
    assert not parts["FFCV"].present and not parts["NVIDIA DALI"].present
    assert "pip install nvidia-dali-cuda130" in str(parts["NVIDIA DALI"].remedy)
    assert "pip install ffcv" in str(parts["FFCV"].remedy)
    for part in parts.values():
        assert part.remedy is None or not part.present


@pytest.mark.parametrize(
    ("cached", "alone", "real", "bottleneck"),
    [(100, 900, 99, "model"), (100, 60, 58, "loader"), (100, 104, 90, "loader"), (100, 300, 70, "both")],
)
def test_the_bottleneck(cached: float, alone: float, real: float, bottleneck: str) -> None:
    assert Speeds(cached, cached, alone, real, 0.1).bottleneck == bottleneck


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backend": "portable"}, "native"),
        ({"threads": 2}, "--threads 8"),
        ({"is_beton": False}, "fasttrain build"),
        ({"portable_share": 0.5}, "--mode jpg: Pillow has to decode 50% of the images"),
        ({"unindexed_share": 0.4}, "fasttrain index DATA: 40% of the images"),
        ({"pixels_per_view": 40.0}, "40 times the pixels"),
        ({"budget": False}, "--memory-budget auto"),
        ({"device": "cpu"}, "train on a GPU"),
        ({"bottleneck": "both"}, "fewer --threads"),
        ({"bottleneck": "model", "amp": "off"}, "--amp bf16"),
        ({"bottleneck": "model"}, "torchrun"),
        ({"bottleneck": "model", "device": "cpu"}, "train on a GPU"),
    ],
)
def test_advice(change: dict[str, Any], said: str) -> None:
    assert said in "; ".join(advise(replace(WELL, **change)))
    assert said not in "; ".join(advise(WELL))


def settings(colour_tree: Path, tmp_path: Path, **changes: Any) -> TrainSettings:
    values = {"data": str(colour_tree), "model": "test_resnet", "out": str(tmp_path / "run"), "device": "cpu"}
    return load_settings(TrainSettings, {**values, "batch_size": 6, "size": 32, **changes})


def test_a_model_and_its_data(colour_tree: Path, tmp_path: Path) -> None:
    result = find_bottleneck(settings(colour_tree, tmp_path, backend="portable", threads=1), seconds=0)
    assert set(result["images_per_s"]) == {"synthetic", "cached", "loader", "real"}
    assert all(rate > 0 for rate in result["images_per_s"].values())
    assert 0 <= result["data_wait_fraction"] <= 1
    assert (result["model"], result["batch_size"], result["size"]) == ("test_resnet", 6, 32)
    assert (result["device"], result["amp"]) == ("cpu", "off")
    assert (result["backend"], result["threads"]) == ("portable", 1)
    assert result["bottleneck"] in ("model", "loader", "both")
    assert result["advice"] and result["advice"][0] in result["verdict"]
    assert not (tmp_path / "run").exists()


@native_only
@pytest.mark.parametrize("index", [True, False])
def test_images_with_an_index_are_counted(index: bool, colour_tree: Path, tmp_path: Path) -> None:
    build(read_source(colour_tree), tmp_path / "a.beton", BuildOptions(workers=1))
    chosen = settings(colour_tree, tmp_path, data=str(tmp_path / "a.beton"), index=index)
    result = find_bottleneck(chosen, seconds=0)
    assert (result["samples"], result["indexed"]) == (24, 24 * index)
    assert not any("index" in advice for advice in result["advice"])


def test_a_slow_loader_is_found_out(colour_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    begin = Loader._begin

    def begin_slowly(self: Loader, planned: Any) -> Any:
        time.sleep(0.15)
        return begin(self, planned)

    monkeypatch.setattr(Loader, "_begin", begin_slowly)
    monkeypatch.setattr("fasttrain.tools.doctor.bottleneck.ROUNDS", 1)
    result = find_bottleneck(settings(colour_tree, tmp_path, drop_rate=0.0), seconds=0)
    assert result["bottleneck"] == "loader" and result["data_wait_fraction"] > 0.3
    assert result["verdict"].startswith("The loader is the bottleneck (")


def test_what_cannot_be_trained_is_said_as_in_training(
    colour_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="samples without a label"):
        find_bottleneck(settings(colour_tree / "red", tmp_path))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="without torchrun"):
        find_bottleneck(settings(colour_tree, tmp_path))
