"""Softmax-EQL: its statistics are those of the gradients, over parts, passes, ranks and resumes."""

import copy

import numpy as np
import pytest
import torch

from fasttrain.models.heads import HeadSettings
from fasttrain.training.losses.base import Facts
from fasttrain.training.losses.criterion import make_criterion
from fasttrain.training.losses.settings import LossSettings
from fasttrain.training.monitor import LaggedLoss

from ..stepper_cases import CPU, make_stepper, random_batch

B, C = 9, 3


def eql(**changes):
    return make_criterion(LossSettings(kind="softmax_eql", **changes), HeadSettings(), 0.0, Facts(C))


def backward(rule, logits, labels, factor=1.0, valid=None):
    logits = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    valid = torch.ones(len(labels), dtype=torch.bool) if valid is None else valid
    losses = rule(logits, torch.tensor(labels), valid)
    (losses.sum() * factor).backward()
    return losses.detach().numpy()


@pytest.mark.parametrize("indicator", ["pos", "neg", "pos_and_neg"])
def test_three_steps_by_the_formula(indicator):
    rng = np.random.default_rng(0)
    rule = eql(tau=0.8, indicator=indicator)
    positive, negative, ratio = np.zeros(C), np.zeros(C), np.ones(C)
    for step in range(3):
        logits, labels = rng.normal(0, 2, (B, C)), rng.choice(C, B, p=[0.7, 0.25, 0.05])
        g = {"pos": positive, "neg": negative, "pos_and_neg": ratio + negative}[indicator]
        g = np.maximum(g, 1e-4)
        losses = np.empty(B)
        gradients = np.empty((B, C))
        for row, y in enumerate(labels):
            shifted = logits[row] + 0.8 * (np.log(g) - np.log(g[y]))
            p = np.exp(shifted - shifted.max())
            p /= p.sum()
            losses[row] = -np.log(p[y])
            gradients[row] = (p - np.eye(C)[y]) / B
        # Whatever the losses are multiplied by afterwards.
        np.testing.assert_allclose(
            backward(rule, logits, labels, factor=1024.0 / B), losses, rtol=1e-4, err_msg=str(step)
        )
        rule.end_step()
        own = np.eye(C, dtype=bool)[labels]
        positive = positive + np.where(own, np.abs(gradients), 0).sum(0)
        negative = negative + np.where(own, 0, np.abs(gradients)).sum(0)
        ratio = positive / (negative + 1e-10)
    np.testing.assert_allclose(rule.loss.positive, positive, rtol=1e-4)
    np.testing.assert_allclose(rule.loss.negative, negative, rtol=1e-4)
    plain = make_criterion(LossSettings(), HeadSettings(), 0.0, Facts(C))
    assert not np.allclose(backward(rule, logits, labels), backward(plain, logits, labels), rtol=0.01)


def test_masked_and_evaluated_samples_leave_no_trace():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(B, C)), np.arange(B) % C
    masked, alone = eql(), eql()
    valid = torch.arange(B) < 5
    backward(masked, logits, labels, valid=valid)
    backward(alone, logits[:5], labels[:5])
    for rule in (masked, alone):
        rule.end_step()
    torch.testing.assert_close(masked.loss.positive, alone.loss.positive)
    before = masked.loss.positive.clone()
    with torch.no_grad():
        masked(torch.tensor(logits), torch.tensor(labels), valid)
    with masked.unobserved():
        backward(masked, logits, labels)
    masked.end_step()
    assert torch.equal(before, masked.loss.positive)


def take_step(stepper, number):
    torch.manual_seed(number)
    stepper.step(random_batch(B, pixels=2, classes=C), number, LaggedLoss(CPU))


def trained(steps=3, **options):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, C))
    stepper = make_stepper(module, loss=eql(), **options)
    for number in range(steps):
        take_step(stepper, number)
    return stepper


def test_parts_of_a_batch_give_its_statistics_and_its_gradient():
    whole, parts = trained(), trained(micro_batch=2)
    assert whole.criterion.loss.positive.min() > 0
    torch.testing.assert_close(whole.criterion.loss.positive, parts.criterion.loss.positive, rtol=1e-5, atol=0)
    torch.testing.assert_close(whole.module[1].weight, parts.module[1].weight)


def test_of_two_passes_the_first_counts():
    """Sharpness-aware steps look at the loss elsewhere, too, which is not where the weights are."""
    twice, once = trained(1, sam_rho=0.5), trained(1)
    assert torch.equal(twice.criterion.loss.positive, once.criterion.loss.positive)


def test_the_state_is_all_that_it_depends_on():
    whole, halves = trained(4), trained(2)
    other = make_stepper(copy.deepcopy(halves.module), loss=eql())
    other.criterion.load_state_dict(halves.criterion.state_dict())
    for number in (2, 3):
        take_step(other, number)
    assert torch.equal(whole.criterion.loss.positive, other.criterion.loss.positive)
    assert torch.equal(whole.module[1].weight, other.module[1].weight)
