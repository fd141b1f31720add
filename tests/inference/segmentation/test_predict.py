"""Masks as files."""

import numpy as np
import pytest
import torch
from PIL import Image

from fasttrain.base.errors import ConfigError
from fasttrain.inference.segmentation.predict import predict_masks, thresholded
from fasttrain.inference.segmentation.scores import ViewSettings
from fasttrain.loading.segmentation_views import whole_view
from fasttrain.models.segmentation import OpenedSegmenter, SegmenterSettings

PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


class ByColour(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 8 * images


@pytest.fixture
def opened() -> OpenedSegmenter:
    view = whole_view(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    names = ["red", "green", "blue"]
    return OpenedSegmenter(SegmenterSettings(), ByColour(), view, names, PALETTE, 3, "0")  # type: ignore[arg-type]


def test_masks_are_written_at_the_images_size_with_palette_and_indices(opened, colour_masks, tmp_path):
    result = predict_masks(opened, colour_masks / "images", tmp_path / "out", overlays=tmp_path / "over", threads=1)
    assert result["samples"] == 12 and result["ignored"] == 0 and result["skipped"] == []
    for path in sorted((colour_masks / "labels").iterdir()):
        written, truth = Image.open(tmp_path / "out" / path.name), np.asarray(Image.open(path))
        assert written.mode == "P" and written.getpalette()[:9] == [level for colour in PALETTE for level in colour]
        assert np.array_equal(np.asarray(written)[1:], truth[1:])
        assert Image.open(tmp_path / "over" / path.name).size == written.size
    shares = [entry["pixels"] for entry in result["classes"]]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0.1


def test_a_threshold_holds_for_every_class():
    torch.manual_seed(0)
    probabilities = torch.rand(2, 5, 8, 8).softmax(1)
    for threshold in (0.0, 0.23, 0.3, 0.99):
        masks = thresholded(probabilities, threshold).long()
        best, classes = probabilities.max(1)
        assert torch.equal(masks, torch.where(best >= threshold, classes, 255))
    logits = torch.eye(5).log().clamp(min=-1)[None, :, :, None]  # each class once the most likely, equally unsure
    assert (thresholded(logits.softmax(1), 0.9) == 255).all()


def test_pixels_below_the_threshold_are_left_out_and_counted(opened, colour_masks, tmp_path):
    how = ViewSettings(hflip=True)
    result = predict_masks(opened, colour_masks / "pairs.beton", tmp_path, how, threshold=0.99, threads=1)
    masks = np.concatenate([np.asarray(Image.open(path)).ravel() for path in tmp_path.iterdir()])
    assert 0 < result["ignored"] < 1
    assert result["ignored"] == pytest.approx((masks == 255).mean())
    kept = sum(entry["pixels"] * entry["kept"] for entry in result["classes"])
    assert kept == pytest.approx(1 - result["ignored"])
    with pytest.raises(ConfigError, match="threshold"):
        predict_masks(opened, colour_masks / "pairs.beton", tmp_path, threshold=1.0)


def test_samples_that_would_share_a_file_are_refused(opened, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    with pytest.raises(ConfigError, match=r"both be written as a\.png"):
        predict_masks(opened, folder, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()
