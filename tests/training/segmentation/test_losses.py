"""Losses of pixels against plain references."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError
from fasttrain.training.segmentation.losses import SegmentationCriterion, SegmentationLossSettings, hard_pixels


def case(batch=3, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, 6, 7, generator=generator)
    masks = torch.randint(0, classes, (batch, 6, 7), generator=generator, dtype=torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    return logits.requires_grad_(), masks, torch.ones(batch, dtype=torch.bool)


def criterion(weights=None, **settings):
    return SegmentationCriterion(load_settings(SegmentationLossSettings, settings), weights)


def test_pixels_are_averaged_over_all_or_over_those_that_count():
    logits, masks, valid = case()
    pixels = F.cross_entropy(logits, masks.long(), reduction="none", ignore_index=255)
    assert torch.allclose(criterion()(logits, masks, valid), pixels.mean((1, 2)))
    counted = (masks != 255).sum((1, 2))
    assert torch.allclose(criterion(average="counted")(logits, masks, valid), pixels.sum((1, 2)) / counted)


def test_class_weights_and_pixel_weights_multiply():
    logits, masks, valid = case()
    weights, own = torch.tensor([0.5, 2.0, 0.0, 1.0]), torch.rand(masks.shape)
    pixels = F.cross_entropy(logits, masks.long(), weights, reduction="none", ignore_index=255)
    assert torch.allclose(criterion(weights)(logits, masks, valid), pixels.mean((1, 2)))
    assert torch.allclose(criterion(weights)(logits, masks, valid, None, own), (pixels * own).mean((1, 2)))


def test_ignored_pixels_and_invalid_images_have_no_part():
    logits, masks, valid = case()
    valid[1], masks[2] = False, 255
    for settings in ({}, {"dice": 1.0}, {"average": "counted"}, {"ohem_min_kept": 5}):
        (gradient,) = torch.autograd.grad(criterion(**settings)(logits, masks, valid).sum(), logits)
        assert torch.isfinite(gradient).all() and gradient[0].any()
        assert not gradient[1:].any()
        assert not gradient.movedim(1, 3)[masks == 255].any()


def ohem_of_mmsegmentation(logits, masks, kept, threshold):
    """OHEMPixelSampler.sample, in NumPy: which pixels have a weight."""
    probability = logits.detach().softmax(1).numpy()
    masks, kept = masks.numpy(), kept * len(masks)
    counted = masks != 255
    own = np.take_along_axis(probability, np.where(counted, masks, 0)[:, None].astype(np.int64), 1)[:, 0]
    chosen = np.zeros(masks.shape, bool)
    if threshold is not None:
        ordered = np.sort(own[counted])
        chosen[counted] = own[counted] < max(ordered[min(kept, len(ordered) - 1)], threshold)
        return chosen
    order = np.argsort(own[counted])  # the largest losses first
    chosen[tuple(part[order[:kept]] for part in np.nonzero(counted))] = True
    return chosen


@pytest.mark.parametrize("threshold", [None, 0.05, 0.7])
@pytest.mark.parametrize("kept", [1, 10, 1000])
def test_hard_pixels_are_those_of_mmsegmentation(kept, threshold):
    logits, masks, valid = case()
    losses = F.cross_entropy(logits, masks.long(), reduction="none", ignore_index=255)
    chosen = hard_pixels(losses, masks != 255, kept * len(masks), threshold)
    wanted = ohem_of_mmsegmentation(logits, masks, kept, threshold)
    assert np.array_equal(chosen.numpy(), wanted)
    settings = {"ohem_min_kept": kept} | ({} if threshold is None else {"ohem_threshold": threshold})
    value = criterion(**settings)(logits, masks, valid)
    assert torch.allclose(value, (losses * torch.from_numpy(wanted)).mean((1, 2)))


def test_hard_pixels_of_nothing_are_none():
    assert not hard_pixels(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool), 4, 0.7).any()
    assert not hard_pixels(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool), 4, None).any()


def test_dice_is_that_of_each_image_and_class():
    logits, masks, valid = case()
    masks[0][masks[0] == 1] = 2  # a class that the first image has not
    both = criterion(dice=0.5)(logits, masks, valid) - criterion()(logits, masks, valid)
    for number in range(3):
        counted = masks[number] != 255
        probabilities, truth = logits[number].softmax(0)[:, counted], masks[number][counted].long()
        losses = []
        for label in truth.unique().tolist():
            hit = (truth == label).float()
            total = probabilities[label].sum() + hit.sum()
            losses.append(1 - 2 * (probabilities[label] * hit).sum() / total)
        assert torch.allclose(both[number], 0.5 * torch.stack(losses).mean(), atol=1e-6)


def test_settings_without_effect_are_refused():
    for settings, what in (({"ohem_threshold": 0.7}, "ohem_min_kept"), ({"beta": 0.9}, "effective")):
        with pytest.raises(ConfigError, match=what):
            load_settings(SegmentationLossSettings, settings)
