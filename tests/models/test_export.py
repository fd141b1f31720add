import json

import pytest
import torch

from fasttrain.base.errors import ConfigError
from fasttrain.loading.views import eval_view
from fasttrain.models.create import create_model
from fasttrain.models.export import export_model
from fasttrain.models.opened import OpenedModel
from tests.cli.called import fasttrain


@pytest.fixture
def opened():
    torch.manual_seed(0)
    module = create_model("test_resnet", 3).to(memory_format=torch.channels_last).eval()
    return OpenedModel("test_resnet", module, eval_view(32), ["a", "b", "c"], 3, "0123")


def outputs_of(path, images):
    """What a file gives, and its metadata, read as another program would."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map["fasttrain"]
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), metadata
    extra = {"fasttrain.json": ""}
    if path.suffix == ".pt2":
        return torch.export.load(path, extra_files=extra).module()(images), extra["fasttrain.json"]
    return torch.jit.load(str(path), _extra_files=extra)(images), extra["fasttrain.json"]


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".ts"])
@pytest.mark.parametrize("inputs", ["normalised", "uint8"])
def test_what_is_written_gives_the_models_logits_for_any_batch(opened, tmp_path, suffix, inputs):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path / "deep" / f"model{suffix}"
    result = export_model(opened, path, inputs)
    assert (result["classes"], result["size"], result["bytes"]) == (3, 32, path.stat().st_size)
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (opened.view.mean, opened.view.std))
    images = (pixels / 255 - mean) / std
    found, metadata = outputs_of(path, pixels if inputs == "uint8" else images)
    with torch.no_grad():
        torch.testing.assert_close(found, opened.module(images), atol=1e-4, rtol=1e-3)
    facts = json.loads(metadata)
    assert facts["class_names"] == ["a", "b", "c"] and facts["eval_view"]["size"] == 32 and facts["input"] == inputs


def test_unknown_endings_and_missing_packages_are_one_sentence(opened, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"name it \.onnx \(ONNX\), "):
        export_model(opened, tmp_path / "model.bin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'fasttrain\[onnx\]'"):
        export_model(opened, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, colour_tree):
    run, out = tmp_path / "run", tmp_path / "model.pt2"
    how = ("--model", "test_resnet", "--size", 32, "--epochs", 1, "--batch-size", 6)
    fasttrain("train", "--data", colour_tree, *how, "--out", run)
    assert fasttrain("export", run, out)["format"] == "ExportedProgram"
