import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from fasttrain.base.errors import WeightsError
from fasttrain.models.create import create_model
from fasttrain.models.weights import load_weights, output_count, read_state_dict

MODEL = "test_resnet"


@pytest.fixture
def source() -> torch.nn.Module:
    torch.manual_seed(1)
    return create_model(MODEL, 7)


def equal_backbone(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return torch.equal(a.state_dict()["conv1.0.weight"], b.state_dict()["conv1.0.weight"])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_state_dicts_of_usual_shapes_load(tmp_path, source, wrap):
    path = tmp_path / "w.pth"
    torch.save(wrap({f"module.{key}": value for key, value in source.state_dict().items()}), path)
    model = create_model(MODEL, 7)
    loaded = load_weights(model, path)
    assert not loaded.head_replaced
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in model.state_dict().items())


def test_averaged_weights_come_first(tmp_path, source):
    averaged = {key: value + 1 for key, value in source.state_dict().items()}
    torch.save({"state_dict": source.state_dict(), "state_dict_ema": averaged}, tmp_path / "w.pth")
    assert torch.equal(read_state_dict(tmp_path / "w.pth")["conv1.0.weight"], averaged["conv1.0.weight"])


def test_a_head_of_other_classes_is_replaced_and_said(tmp_path, source):
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = create_model(MODEL, 3)
    assert load_weights(model, tmp_path / "w.safetensors").head_replaced
    assert equal_backbone(model, source)
    # A new head on trained features starts with all classes equally likely.
    torch.testing.assert_close(model(torch.randn(2, 3, 32, 32)).softmax(1), torch.full((2, 3), 1 / 3))
    with pytest.raises(WeightsError, match=r"fc.bias|fc.weight"):
        load_weights(create_model(MODEL, 3), tmp_path / "w.safetensors", new_head=False)


def test_weights_match_by_order_under_other_names(tmp_path, source):
    renamed = {f"t{i}": v for i, (k, v) in enumerate(source.state_dict().items()) if "num_batches" not in k}
    torch.save(renamed, tmp_path / "w.pth")
    model = create_model(MODEL, 7)
    with pytest.raises(WeightsError, match="--weights-match order"):
        load_weights(model, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth", "order", new_head=False)
    assert all(
        torch.equal(value, source.state_dict()[key])
        for key, value in model.state_dict().items()
        if "num_batches" not in key
    )
    assert output_count(renamed, model, "order") == 7
    other = create_model("test_vit", 7)
    with pytest.raises(WeightsError, match="cannot be matched by order"):
        load_weights(other, tmp_path / "w.pth", "order")


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "test_coatnet", "test_maxvit"])
def test_weights_for_images_of_another_size(tmp_path, name):
    """As timm changes the size of a model that is there; the head is new, or not, as ever."""
    torch.manual_seed(0)
    source = create_model(name, 7, size=96)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = create_model(name, 7, size=128)
    loaded = load_weights(model, tmp_path / "w.safetensors")
    assert loaded.resampled and not loaded.head_replaced
    source.set_input_size(img_size=(128, 128))
    image = torch.randn(1, 3, 128, 128)
    torch.testing.assert_close(model.eval()(image), source.eval()(image))
    other = create_model(name, 3, size=128)
    assert load_weights(other, tmp_path / "w.safetensors").head_replaced


def test_another_model_at_another_size_is_refused(tmp_path):
    save_file(create_model("vit_tiny_patch16_224", 3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"is of shape .*192.*, the model.s .*96"):
        load_weights(create_model("vit_tiny_patch16_224", 3, size=288, embed_dim=96), tmp_path / "w.safetensors")


def test_code_in_a_weight_file_is_never_run(tmp_path):
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"conv1.0.weight": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "evil.bin"):
        with pytest.raises(WeightsError):
            read_state_dict(tmp_path / name)
    assert not marker.exists()


def test_damaged_and_foreign_files_are_sentences(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(WeightsError, match=name):
            read_state_dict(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no state dict"):
        read_state_dict(tmp_path / "list.pth")


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(WeightsError, match="resnet50"):
        create_model("resnet-50", 2)
