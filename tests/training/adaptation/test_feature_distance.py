"""The feature distance beside DAFormer's formula, and where it has nothing to measure."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fasttrain.training.adaptation.feature_distance import downscaled, feature_distance, of_classes


def reference(labels: Tensor, factor: int, num_classes: int, majority: float) -> Tensor:
    """DAFormer's `downscale_label_ratio`."""
    labels = torch.where(labels == 255, num_classes, labels.long())
    shares = F.avg_pool2d(F.one_hot(labels, num_classes + 1).permute(0, 3, 1, 2).float(), factor)
    share, best = shares.max(1)
    return torch.where((share < majority) | (best == num_classes), 255, best)


def test_labels_of_a_coarser_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 4, (3, 8, 8), generator=generator)
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    changed = (
        torch.rand(labels.shape, generator=generator)
        < torch.rand(3, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2) * 0.5
    )
    labels = torch.where(changed, 255, labels).to(torch.uint8)
    found = downscaled(labels, (8, 8), 4)
    assert torch.equal(found.long(), reference(labels, 8, 4, 0.75))
    assert 0 < (found == 255).float().mean() < 1


def test_a_share_of_exactly_the_majority_is_one() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.uint8)
    labels[0, 0] = 1
    assert downscaled(labels, (1, 1), 2).item() == 0
    labels[0, 1, 0] = 1
    assert downscaled(labels, (1, 1), 2).item() == 255


def test_cells_that_do_not_divide_the_image() -> None:
    assert downscaled(torch.full((2, 50, 70), 3, dtype=torch.uint8), (2, 3), 5).unique().tolist() == [3]


def test_mean_over_cells_that_count() -> None:
    student = torch.randn(2, 5, 3, 4, requires_grad=True)
    frozen = torch.randn(2, 5, 3, 4)
    counts = torch.rand(2, 3, 4) < 0.5
    distance = feature_distance(student, frozen, counts)
    assert distance.item() == pytest.approx(torch.norm(student - frozen, dim=1)[counts].mean().item(), rel=1e-6)
    distance.backward()
    assert student.grad is not None
    assert torch.equal(student.grad.abs().sum(1) > 0, counts)


@pytest.mark.parametrize("equal", [True, False])
def test_nothing_to_measure_gives_zero(equal: bool) -> None:
    frozen = torch.randn(1, 5, 3, 4)
    student = (frozen.clone() if equal else torch.randn(1, 5, 3, 4)).requires_grad_()
    counts = torch.full((1, 3, 4), equal)  # equal features, or an empty mask
    distance = feature_distance(student, frozen, counts)
    distance.backward()
    assert distance.item() == 0
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros_like(frozen))


def test_things_alone() -> None:
    labels = torch.tensor([[0, 1, 2, 3, 255]], dtype=torch.uint8)
    assert of_classes(labels, (1, 3)).tolist() == [[False, True, False, True, False]]
