"""Soups of segmentation models: by key, measured and chosen by mIoU."""

from pathlib import Path

import pytest
import torch

from fasttrain.inference.labels import ClassMismatchError
from fasttrain.inference.soup import Tasting, make_soup
from fasttrain.loading.segmentation_views import whole_view
from fasttrain.models.checkpoint import CheckpointInfo, save_weights
from fasttrain.models.segmentation import SegmenterSettings, create_segmenter, open_segmenter
from fasttrain.models.weights import read_state_dict

MADE_OF = SegmenterSettings(model="test_efficientnet", head_channels=8, head_embed=8)


def checkpoint(path: Path, seed: int, names: list[str], backwards: bool = False) -> Path:
    """A model of random weights; `backwards` stores its tensors in another order."""
    torch.manual_seed(seed)
    module = create_segmenter(MADE_OF, len(names))
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    state = module.state_dict()
    if backwards:
        state = dict(reversed(state.items()))
    segmenter = {**MADE_OF.model_dump(mode="json"), "palette": None, "crop": 32}
    view = whole_view().model_dump(mode="json")
    save_weights(path, state, CheckpointInfo("test_efficientnet", len(names), names, view, segmenter=segmenter))
    return path


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    names = ["red", "green", "blue"]
    return [checkpoint(tmp_path / f"{seed}.safetensors", seed, names, backwards=seed == 2) for seed in range(4)]


def test_the_mean_is_taken_by_key(checkpoints: list[Path], tmp_path: Path) -> None:
    result = make_soup(checkpoints, tmp_path / "soup.safetensors")
    assert result["statistics"] == "averaged"
    states = [read_state_dict(path) for path in checkpoints]
    soup = read_state_dict(tmp_path / "soup.safetensors")
    assert soup.keys() == states[0].keys()
    for key, tensor in soup.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, torch.stack([state[key] for state in states]).mean(0))
        else:
            assert torch.equal(tensor, states[0][key])
    assert open_segmenter(tmp_path / "soup.safetensors").class_names == ["red", "green", "blue"]


def test_greedily_by_miou_with_statistics_anew(checkpoints: list[Path], colour_masks: Path, tmp_path: Path) -> None:
    beton = colour_masks / "pairs.beton"
    tasting = Tasting(val=beton, bn_data=beton, batch_size=4, threads=1)
    result = make_soup(checkpoints[:2], tmp_path / "soup.safetensors", "greedy", tasting=tasting)
    assert [entry["alone"] for entry in result["tried"]] == sorted((e["alone"] for e in result["tried"]), reverse=True)
    assert result["miou"] == max(entry["soup"] for entry in result["tried"] if entry["kept"])
    assert open_segmenter(tmp_path / "soup.safetensors").metrics["val_miou"] == result["miou"]


def test_masks_of_other_classes_are_refused(colour_masks: Path, tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "other.safetensors", 0, ["red", "green", "black"])
    with pytest.raises(ClassMismatchError, match="blue"):
        make_soup([other], tmp_path / "soup.safetensors", tasting=Tasting(val=colour_masks / "pairs.beton", threads=1))
