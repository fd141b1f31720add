import pytest
import torch

from fasttrain.base.errors import WeightsError
from fasttrain.models.checkpoint import CheckpointInfo, load_state, save_state, save_weights
from fasttrain.models.create import create_model, eval_view_of
from fasttrain.models.opened import open_model

MODEL = "test_resnet"


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = create_model(MODEL, 3).to(memory_format=torch.channels_last)
    view = eval_view_of(MODEL, 48)
    info = CheckpointInfo(MODEL, 3, ["a", "b", "c"], view.model_dump(mode="json"), epoch=2, metrics={"val_top1": 0.5})
    save_weights(tmp_path / "last.safetensors", model.state_dict(), info)
    return tmp_path / "last.safetensors", model.eval(), view


def test_a_checkpoint_brings_model_view_and_names(checkpoint):
    path, model, view = checkpoint
    for source in (path, path.parent):
        opened = open_model(source)
        assert (opened.name, opened.class_names, opened.view) == (MODEL, ["a", "b", "c"], view)
        assert opened.metrics == {"val_top1": 0.5}
        images = torch.rand(2, 3, 48, 48)
        torch.testing.assert_close(opened.module(images), model(images))
    assert open_model(path, size=64).view.size == 64


def test_a_contradicting_model_name_is_refused(checkpoint):
    with pytest.raises(WeightsError, match="leave --model out"):
        open_model(checkpoint[0], model="test_vit")


def test_bare_weights_need_a_model_and_tell_their_outputs(tmp_path):
    torch.save(create_model(MODEL, 5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="--model"):
        open_model(tmp_path / "w.pth")
    opened = open_model(tmp_path / "w.pth", model=MODEL)
    assert opened.num_classes == 5
    assert opened.class_names is None


def test_imagenet_weights_carry_the_wordnet_names(tmp_path):
    torch.save(create_model(MODEL, 1000).state_dict(), tmp_path / "w.pth")
    names = open_model(tmp_path / "w.pth", model=MODEL).class_names
    assert names is not None
    assert (names[0], len(names)) == ("n01440764", 1000)


def test_the_state_round_trips_and_damage_is_a_sentence(tmp_path):
    state = {"step": 3, "model": {"w": torch.arange(3.0)}, "names": ["a"]}
    save_state(tmp_path / "s.pt", state)
    loaded = load_state(tmp_path / "s.pt")
    assert loaded["step"] == 3
    assert torch.equal(loaded["model"]["w"], torch.arange(3.0))
    (tmp_path / "s.pt").write_bytes((tmp_path / "s.pt").read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be resumed"):
        load_state(tmp_path / "s.pt")
    with pytest.raises(WeightsError, match="nothing to resume"):
        load_state(tmp_path / "absent.pt")


def test_fixed_size_models_are_built_for_the_size():
    model = create_model("test_vit", 2, size=96)
    assert model(torch.rand(1, 3, 96, 96)).shape == (1, 2)


def test_equal_weights_are_equal_files(tmp_path):
    """What was made of a checkpoint is known by the hash of its bytes."""
    state = {"b": torch.arange(3.0), "a": torch.ones(2, dtype=torch.int64)}
    info = CheckpointInfo("resnet18", 2, ["ä", '"b"\n'], {"size": 32})
    for number in range(8):
        save_weights(tmp_path / str(number), state, info)
    files = {(tmp_path / str(number)).read_bytes() for number in range(8)}
    assert len(files) == 1
