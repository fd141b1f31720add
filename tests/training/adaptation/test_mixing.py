"""ClassMix, the confidence gate and strong augmentation, each image by itself."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from fasttrain.loading.augment.settings import Blur
from fasttrain.training.adaptation.class_mix import choose_classes, paste
from fasttrain.training.adaptation.confidence import pseudo_labels
from fasttrain.training.adaptation.strong import StrongAugmentation, StrongSettings, blurred

HALF = (0.5, 0.5, 0.5)


def labels_of(*images: list[int]) -> Tensor:
    """Images of columns of classes, (B, 4, 12)."""
    rows = [np.resize(np.repeat(classes, 12 // len(classes)), 12) for classes in images]
    return torch.from_numpy(np.stack(rows).astype(np.uint8)).unsqueeze(1).repeat(1, 4, 1)


@pytest.mark.parametrize("seed", range(5))
def test_half_of_each_images_own_classes(seed: int) -> None:
    images = [[0, 1, 2, 3], [7], [4, 5, 255], [255], [8, 9, 10]]
    chosen = choose_classes(labels_of(*images), seed, step=3)
    for image, classes in zip(images, chosen, strict=True):
        own = {number for number in image if number != 255}
        found = set(torch.nonzero(classes)[:, 0].tolist())
        assert found <= own
        assert len(found) == -(-len(own) // 2)  # of the image; a draw over the batch gives others


def test_draws_depend_on_seed_step_and_place_alone() -> None:
    labels = labels_of(*[list(range(12))] * 6)
    chosen = choose_classes(labels, seed=1, step=2)
    assert torch.equal(chosen, choose_classes(labels, 1, 2))
    assert torch.equal(chosen[4:], choose_classes(labels[4:], 1, 2, first=4))  # as a second rank draws them
    assert len({tuple(row.tolist()) for row in chosen}) > 1  # each image has its own
    assert not torch.equal(chosen, choose_classes(labels, 1, 3))
    assert not torch.equal(chosen, choose_classes(labels, 2, 2))


def test_all_classes_are_drawn_alike() -> None:
    labels = labels_of(*[[0, 1, 2, 3]] * 8)
    counts = sum(choose_classes(labels, 0, step).sum(0) for step in range(100))[:4]
    assert (counts - 400).abs().max() < 60  # four standard deviations


def test_pasted_pixels() -> None:
    source, target = torch.ones(2, 3, 4, 12), torch.zeros(2, 3, 4, 12)
    source_labels, target_labels = labels_of([0, 1, 255], [2, 3, 4]), labels_of([9], [9])
    chosen = torch.zeros(2, 256, dtype=torch.bool)
    chosen[0, 1], chosen[1, [2, 4]] = True, True
    mixed = paste(source, source_labels, target, target_labels, torch.tensor([0.25, 0.5]), chosen)
    pasted = torch.stack([source_labels[0] == 1, (source_labels[1] == 2) | (source_labels[1] == 4)])
    assert torch.equal(mixed.pasted, pasted)
    assert torch.equal(mixed.images, pasted[:, None].expand(-1, 3, -1, -1).float())
    assert torch.equal(mixed.labels, torch.where(pasted, source_labels, target_labels))
    assert mixed.weights[0].unique().tolist() == [0.25, 1.0]
    assert mixed.weights[1].unique().tolist() == [0.5, 1.0]
    assert torch.equal(mixed.weights == 1, pasted)


def test_each_image_has_its_own_share() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    logits[0, 1] = 20.0  # sure everywhere
    logits[1, 2, :1] = 20.0  # sure in the first row: all of the image, but for padding
    counts = torch.ones(2, 4, 4, dtype=torch.bool)
    counts[1, 2:] = False
    labels, share = pseudo_labels(logits, 0.968, counts)
    assert share.tolist() == [1.0, 0.5]  # one image lifts no other, and padding is not counted
    assert (labels[0] == 1).all()
    assert (labels[1, 0] == 2).all()
    assert (labels[1, 2:] == 255).all()
    assert pseudo_labels(logits, 0.968, torch.zeros_like(counts))[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("number", range(4))
def test_every_class_passes_the_same_gate(number: int) -> None:
    logits = torch.zeros(1, 4, 2, 2)
    logits[:, number] = 1.0
    counts = torch.ones(1, 2, 2, dtype=torch.bool)
    probability = logits.softmax(1)[0, number, 0, 0].item()
    assert pseudo_labels(logits, probability - 1e-3, counts)[1].item() == 1
    assert pseudo_labels(logits, probability + 1e-3, counts)[1].item() == 0


def noise(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_strong_augmentation_is_each_images_own() -> None:
    strong = StrongAugmentation(StrongSettings(jitter=0.5), 4, HALF, HALF)
    images = torch.cat([noise(1)] * 16)
    results = strong(images, step=5)
    assert torch.equal(results, strong(images, 5))
    assert torch.equal(results[8:], strong(images[8:], 5, first=8))
    untouched = [torch.equal(result, images[0]) for result in results]
    assert 0 < sum(untouched) < 16  # some images are left alone, beside others that are not
    assert not torch.equal(results, strong(images, 6))


def test_probabilities_are_what_they_say() -> None:
    never = StrongAugmentation(StrongSettings(jitter=0.0, blur=Blur(prob=0.0)), 0, HALF, HALF)
    assert torch.equal(never(noise(), 0), noise())
    often = StrongAugmentation(StrongSettings(jitter=0.8, blur=Blur(prob=0.0)), 0, HALF, HALF)
    images = noise(1).expand(100, -1, -1, -1)
    changed = sum(int((often(images, step) != images).flatten(1).any(1).sum()) for step in range(4))
    assert abs(changed - 320) < 32  # four standard deviations


def test_blur_is_gaussian() -> None:
    images = noise(3)
    results = blurred(images, np.array([0.0, 0.5, 1.15]))
    assert torch.equal(results[0], images[0])
    for number, sigma in ((1, 0.5), (2, 1.15)):
        wanted = gaussian_blur(images[number], [11, 11], [sigma, sigma])
        torch.testing.assert_close(results[number], wanted, atol=1e-4, rtol=0)
