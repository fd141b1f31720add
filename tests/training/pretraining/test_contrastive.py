"""MoCo v2: queue, second encoder and shuffle-BN each have the effect that they are there for."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fasttrain.loading.batch import Batch
from fasttrain.training.monitor import LaggedLoss
from fasttrain.training.pretraining.contrastive import ContrastCriterion, InfoNce, MomentumContrast
from fasttrain.training.pretraining.settings import MocoSettings
from fasttrain.training.stepper import Stepper

from ..stepper_cases import CPU, make_stepper

DIM = 6


class Encoder(nn.Module):
    """A linear layer, with or without batch normalisation; it notes which images came together."""

    def __init__(self, normalised: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.norm = nn.BatchNorm1d(8) if normalised else nn.Identity()
        self.seen: list[list[float]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images[:, 0, 0, 0].tolist())
        result: Tensor = self.norm(self.linear(images.flatten(1)))
        return result


def contrast(normalised: bool = True, groups: int = 2, **settings: Any) -> tuple[MomentumContrast, InfoNce]:
    torch.manual_seed(0)
    chosen = MocoSettings(dim=DIM, queue=16, **settings)
    module = MomentumContrast(Encoder(normalised), 8, chosen, groups)
    return module, InfoNce(module, chosen.temperature, 16, 0, CPU)


def stepper_of(module: MomentumContrast, nce: InfoNce, **options: Any) -> Stepper:
    stepper = make_stepper(module, loss=ContrastCriterion(nce), **options)
    stepper.train()  # as each epoch does
    return stepper


def batch_of(size: int = 8, valid: list[bool] | None = None) -> Batch:
    """Two views, whose first pixel is the number of the sample."""
    images = torch.randn(2, size, 3, 2, 2)
    images[:, :, 0, 0, 0] = torch.arange(size).float()
    mask = torch.ones(size, dtype=torch.bool) if valid is None else torch.tensor(valid)
    return Batch(images, torch.full((size,), -1), torch.arange(size), mask)


def keys_of(module: MomentumContrast, batch: Batch) -> Tensor:
    return module(batch.images.flatten(0, 1)).detach()[:, DIM:]


def test_the_loss_is_the_formula_in_numpy() -> None:
    module, nce = contrast()
    output = module(batch_of().images.flatten(0, 1))
    assert output.shape == (8, 2 * DIM)
    losses = nce(output[None], torch.zeros(8, dtype=torch.int64), None)
    queries, keys = np.split(output.detach().double().numpy(), 2, 1)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1, rtol=1e-5)
    for query, key, loss in zip(queries, keys, losses.tolist(), strict=True):
        own, others = np.exp(query @ key / 0.2), np.exp(nce.queue.double().numpy() @ query / 0.2)
        assert loss == pytest.approx(-np.log(own / (own + others.sum())), rel=1e-4)


def test_the_queue_makes_the_loss_and_holds_the_latest_keys() -> None:
    module, nce = contrast()
    stepper, wanted = stepper_of(module, nce), nce.queue.clone()
    for step in range(3):  # 24 keys go into 16 places
        batch, before = batch_of(), nce.queue.clone()
        stepper.step(batch, step, LaggedLoss(CPU))
        places = (torch.arange(8) + 8 * step) % 16
        assert not torch.isclose(nce.queue[places], before[places]).all(1).any()
        kept = torch.ones(16, dtype=torch.bool).index_fill_(0, places, False)
        assert torch.equal(nce.queue[kept], before[kept])
        wanted[places] = nce.queue[places]
    assert nce.pointer == 8
    torch.testing.assert_close(nce.queue.norm(dim=1), torch.ones(16))
    output = module(batch_of().images.flatten(0, 1))[None]
    labels = torch.zeros(8, dtype=torch.int64)
    usual = nce(output, labels, None)
    nce.queue[0] = output[0, 3, :DIM].detach()  # nothing is as similar to a query as the query
    harder = nce(output, labels, None)
    assert harder[3] > usual[3] + 0.1


def test_the_keys_that_enter_are_those_of_the_samples_in_their_order() -> None:
    module, nce = contrast(normalised=False)
    batch = batch_of()
    expected = keys_of(module, batch)
    stepper_of(module, nce).step(batch, 0, LaggedLoss(CPU))
    torch.testing.assert_close(nce.queue[:8], expected)


def test_masked_samples_have_no_key_in_the_queue_and_no_loss() -> None:
    module, nce = contrast()
    before = nce.queue.clone()
    batch = batch_of(valid=[True, False] * 4)
    total = LaggedLoss(CPU)
    stepper_of(module, nce).step(batch, 0, total)
    assert total.totals()[1] == 4
    assert torch.equal(nce.queue[1:8:2], before[1:8:2])
    assert not torch.isclose(nce.queue[:8:2], before[:8:2]).all(1).any()


def test_parts_of_a_batch_enter_the_queue_once_each_and_trials_do_not() -> None:
    module, nce = contrast(normalised=False)
    batch = batch_of()
    expected, start = keys_of(module, batch), nce.queue.clone()
    stepper = stepper_of(module, nce, micro_batch=4)
    stepper.try_batch(batch)
    stepper.criterion.end_step()
    assert torch.equal(nce.queue, start)
    stepper.step(batch, 0, LaggedLoss(CPU))
    torch.testing.assert_close(nce.queue[:8], expected, rtol=1e-2, atol=1e-3)
    assert nce.pointer == 8 and torch.equal(nce.queue[8:], start[8:])


def test_more_keys_than_places_leave_the_last_ones() -> None:
    module, nce = contrast(normalised=False)
    batch = batch_of(20)
    expected = keys_of(module, batch)
    stepper_of(module, nce).step(batch, 0, LaggedLoss(CPU))
    torch.testing.assert_close(nce.queue, expected[-16:])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_second_encoder_follows_the_first_one(momentum: float) -> None:
    module, nce = contrast(momentum=momentum)
    keys = [*module.key_encoder.parameters(), *module.key_projector.parameters()]
    queries = [*module.encoder.parameters(), *module.projector.parameters()]
    old = [key.clone() for key in keys]
    assert all(torch.equal(key, query) for key, query in zip(keys, queries, strict=True))
    stepper_of(module, nce).step(batch_of(), 0, LaggedLoss(CPU))
    for before, key, query in zip(old, keys, queries, strict=True):
        torch.testing.assert_close(key, momentum * before + (1 - momentum) * query)
        assert key.grad is None and not key.requires_grad
    assert any(not torch.equal(before, query) for before, query in zip(old, queries, strict=True))


def test_keys_are_normalised_in_other_company_than_queries() -> None:
    module, nce = contrast()
    stepper_of(module, nce)
    torch.manual_seed(3)
    batch = batch_of()
    keys = keys_of(module, batch)
    queried, keyed = module.encoder.seen, module.key_encoder.seen  # type: ignore[union-attr]
    assert queried == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(itertools.chain(*keyed)) == list(range(8))  # type: ignore[arg-type]
    assert {frozenset(group) for group in keyed} != {frozenset(group) for group in queried}  # type: ignore[arg-type]
    # In the queries' company, statistics and so the keys would be others.
    ordered = module._grouped(module.key_encoder, module.key_projector, batch.images[1])
    assert not torch.allclose(keys, nn.functional.normalize(ordered), atol=1e-3)


def test_the_second_encoder_normalises_by_the_batch_unless_the_first_one_is_frozen() -> None:
    for frozen in (False, True):
        module, nce = contrast()
        module.encoder.norm.requires_grad_(not frozen)  # type: ignore[union-attr]
        before = [part.norm.running_mean.clone() for part in (module.encoder, module.key_encoder)]  # type: ignore[union-attr]
        stepper_of(module, nce).step(batch_of(), 0, LaggedLoss(CPU))
        for part, mean in zip((module.encoder, module.key_encoder), before, strict=True):
            assert torch.equal(part.norm.running_mean, mean) == frozen  # type: ignore[union-attr, arg-type]


def test_without_batch_normalisation_shuffling_changes_nothing() -> None:
    module, _ = contrast(normalised=False)
    batch = batch_of()
    ordered = module._grouped(module.key_encoder, module.key_projector, batch.images[1])
    torch.testing.assert_close(keys_of(module, batch), nn.functional.normalize(ordered))


def test_the_loss_is_in_float32_under_autocast() -> None:
    module, nce = contrast()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(batch_of().images.flatten(0, 1))
    assert output.dtype == torch.float32
    criterion = ContrastCriterion(nce)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = criterion(output, torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.bool))
    again = nce(output[None], torch.zeros(8, dtype=torch.int64), None)
    assert losses.dtype == torch.float32 and torch.equal(losses, again)


def test_queue_and_pointer_are_stored() -> None:
    module, nce = contrast()
    stepper_of(module, nce).step(batch_of(), 0, LaggedLoss(CPU))
    _, other = contrast()
    assert not torch.equal(other.queue, nce.queue)
    other.load_state_dict(nce.state_dict())
    assert torch.equal(other.queue, nce.queue) and other.pointer == nce.pointer == 8
