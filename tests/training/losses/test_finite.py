"""Losses and gradients at their extremes: absent classes, cosines of 1 and -1, saturated scores, half precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttrain.models.heads import CosineHead, HeadSettings
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.criterion import make_criterion
from fasttrain.training.losses.registry import KINDS
from fasttrain.training.losses.settings import LossSettings

C = 4
HEADS = [
    {},
    {"kind": "arcface", "scale": 64.0},
    {"kind": "arcface", "adaptive": True},
    {"kind": "arcface", "easy_margin": True},
]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(KINDS)),
    head=st.sampled_from(HEADS),
    weights=st.sampled_from([None, "inverse", "effective"]),
    counts=st.lists(st.sampled_from([0, 1, 7, 10**9]), min_size=C, max_size=C),
    values=st.lists(st.sampled_from([-1.0, 1.0, 0.0, 1e-8, -0.9999999, 0.5]), min_size=6 * C, max_size=6 * C),
    labels=st.lists(st.integers(0, C - 1), min_size=2, max_size=2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    hardest=st.sampled_from([1.0, 0.5]),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_losses_and_gradients_stay_finite(kind, head, weights, counts, values, labels, dtype, hardest, smoothing):
    views = KINDS[kind].views
    if views > 1:
        head = {}
    chosen = LossSettings(kind=kind, class_weights=weights, hardest=hardest)
    margin = HeadSettings(**head)
    rule = make_criterion(chosen, margin, smoothing, Facts(C, torch.tensor(counts)))
    scale = margin.scale if margin.kind == "arcface" else 500.0
    logits = (scale * torch.tensor(values[: views * 2 * C]).view(-1, C)).to(dtype).requires_grad_()
    for _ in range(2):  # the second time with the statistics of the first
        logits.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            losses = rule(logits, torch.tensor(labels), torch.tensor([True, True]))
        assert losses.dtype == torch.float32 and losses.isfinite().all() and (losses >= -1e-6).all()
        losses.mean().backward()
        assert logits.grad.isfinite().all()
        rule.end_step()


@pytest.mark.parametrize("centres", [1, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_features_that_lie_on_a_direction_or_at_zero_have_finite_gradients(centres, sign):
    head = CosineHead(8, C, 30.0, centres)
    features = torch.stack([sign * head.weight.detach()[0], torch.zeros(8), torch.full((8,), 1e-30)]).requires_grad_()
    rule = make_criterion(LossSettings(), HeadSettings(kind="arcface"), 0.0, Facts(C))
    rule(head(features), torch.tensor([0, 0, 1]), torch.ones(3, dtype=torch.bool)).sum().backward()
    assert head.weight.grad.isfinite().all() and features.grad[0].isfinite().all()


def test_garbage_under_the_mask_does_not_count():
    logits = torch.randn(4, C)
    logits[1] = float("nan")
    logits[2] = float("inf")
    valid = torch.tensor([True, False, False, True])
    for kind in ("ce", "focal", "seesaw", "bce"):
        rule = make_criterion(LossSettings(kind=kind, hardest=0.5), HeadSettings(), 0.0, Facts(C, torch.ones(C)))
        losses = rule(logits, torch.zeros(4, dtype=torch.int64), valid)
        assert losses.isfinite().all() and (losses[1:3] == 0).all() and losses.sum() > 0
