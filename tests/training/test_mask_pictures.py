"""Overlays of masks."""

import numpy as np
import torch

from fasttrain.beton_build.mask_info import MaskInfo
from fasttrain.inference.segmentation.overlays import overlay
from fasttrain.loading.batch import MaskedBatch
from fasttrain.training.mask_pictures import mask_grid, mask_pictures

INFO = MaskInfo("mask", ("sky", "road"), ((200, 0, 0), (0, 200, 0)), 255)


def test_colours_lie_over_the_image() -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 1
    mask[4:] = 255
    shown = overlay(pixels, mask, INFO.palette or ())
    assert (shown[:4, :4] == (150, 50, 50)).all() and (shown[:4, 4:] == (50, 150, 50)).all()
    assert len(np.unique(shown[4:].reshape(-1, 3), axis=0)) == 2  # stripes


def test_valid_samples_and_a_legend() -> None:
    images = torch.zeros(3, 3, 16, 24)
    masks = torch.zeros(3, 16, 24, dtype=torch.uint8)
    batch = MaskedBatch(images, *(torch.tensor([0, 1, 2]),) * 2, torch.tensor([True, False, True]), masks)
    pictures = mask_pictures(batch, INFO, (0.5, 0.5, 0.5), (1, 1, 1))
    assert [picture.shape for picture in pictures] == [(16, 48, 3)] * 2
    assert (pictures[0][:, :24] == 128).all() and (pictures[0][:, 24:] == (164, 64, 64)).all()
    grid = mask_grid(pictures, INFO, [0, 1])
    assert ((grid == (200, 0, 0)).all(-1)).any() and ((grid == (0, 200, 0)).all(-1)).any()
