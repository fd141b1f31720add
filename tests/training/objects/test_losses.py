"""The losses of activation maps: the published formulas, and that each part has an effect."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fasttrain.base.config import load_settings
from fasttrain.models.objects.mapper import MapperSettings, ObjectMapper, Sides
from fasttrain.training.objects.borders import Borders, border_of
from fasttrain.training.objects.losses import ObjectCriterion
from fasttrain.training.objects.settings import ContrastSettings

CPU = torch.device("cpu")


def criterion(**settings: Any) -> ObjectCriterion:
    mapper = ObjectMapper(MapperSettings(model="test_resnet"))
    return ObjectCriterion(load_settings(ContrastSettings, settings, "contrast"), mapper)


def sides(count: int = 6, seed: int = 0) -> Sides:
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, count, 5, generator=generator).abs()
    return Sides(one, other, torch.rand(count, 1, 7, 7, generator=generator))


def losses_of(found: Sides, valid: list[bool] | None = None, **settings: Any) -> Tensor:
    known = torch.ones(len(found.one), dtype=torch.bool) if valid is None else torch.tensor(valid)
    return criterion(**settings)(found, torch.zeros(len(known), dtype=torch.int64), known)


def published(one: np.ndarray, other: np.ndarray, maps: np.ndarray, alpha: float, area: float) -> float:
    """The program's own way: ranks by sorting twice, means over all pairs."""

    def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        found: np.ndarray = np.clip(a @ b.T, 0.0005, 0.9995)
        return found

    def sim_max(features: np.ndarray) -> float:
        alike = cosines(features, features)
        rank = np.argsort(np.argsort(-alike, axis=1), axis=1) - 1
        return float(np.mean(-np.log(alike) * np.exp(-alpha * rank)))

    sim_min = np.mean(-np.log(1 - cosines(other, one)))
    return sim_max(one) + float(sim_min) + sim_max(other) + area * float(maps.mean())


@pytest.mark.parametrize(("alpha", "area"), [(0.25, 0.1), (0.0, 0.0), (1.0, 0.5)])
def test_the_loss_is_the_formula_in_numpy(alpha: float, area: float) -> None:
    found = sides()
    expected = published(*(part.double().numpy() for part in found), alpha, area)
    assert losses_of(found, alpha=alpha, area=area).mean().item() == pytest.approx(expected, rel=1e-5)


def test_masked_images_are_compared_with_nobody() -> None:
    found = sides()
    kept = [0, 2, 3, 5]
    expected = losses_of(Sides(*(part[kept] for part in found)))
    losses = losses_of(found, [number in kept for number in range(6)])
    torch.testing.assert_close(losses[kept], expected)
    assert losses[1] == losses[4] == 0


def test_cosines_are_kept_from_the_ends() -> None:
    same = torch.ones(4, 3)
    found = Sides(same, same, torch.zeros(4, 1, 7, 7))
    ranks = np.exp(-0.25 * np.arange(-1, 3)).mean()
    expected = -np.log(1 - 0.99) - 2 * np.log(0.99) * ranks
    assert losses_of(found, most=0.99).tolist() == pytest.approx([expected] * 4, rel=1e-4)


def test_the_mean_features_are_those_under_the_map_and_beside_it() -> None:
    torch.manual_seed(0)
    mapper = ObjectMapper(MapperSettings(model="test_resnet")).eval()
    images = torch.randn(2, 3, 64, 64)
    found = mapper(images)
    features, maps = mapper._features(images), mapper.maps(images)
    assert maps.shape == (2, 1, 4, 4)
    torch.testing.assert_close(found.maps, maps)
    torch.testing.assert_close(found.one, (features * maps).sum((2, 3)) / 16)
    torch.testing.assert_close(found.other, (features * (1 - maps)).sum((2, 3)) / 16)


def test_features_and_loss_are_in_float32_under_autocast() -> None:
    mapper = ObjectMapper(MapperSettings(model="test_resnet"))
    chosen = ObjectCriterion(ContrastSettings(), mapper)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mapper(torch.randn(3, 3, 64, 64))
        losses = chosen(found, torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool))
    assert {part.dtype for part in (*found, losses)} == {torch.float32}
    again = chosen(found, torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool))
    assert torch.equal(losses, again)


def ringed(border: float, inside: float, count: int = 3) -> Tensor:
    maps = torch.full((count, 1, 14, 14), border)
    maps[:, :, 2:-2, 2:-2] = inside
    return maps


@pytest.mark.parametrize(
    ("border", "inside", "shows"), [(0.2, 0.4, "objects"), (0.6, 0.9, "objects"), (0.5, 0.1, None)]
)
def test_what_is_high_at_the_border_is_background(border: float, inside: float, shows: str | None) -> None:
    borders = Borders()
    assert borders.take() == {} and borders.shows is None
    valid = torch.tensor([True, False, True])
    maps = ringed(border, inside)
    maps[1] = 1 - maps[1]  # of an image that could not be read
    borders.add(maps, valid)
    borders.add(ringed(border + 0.1, inside + 0.1), torch.ones(3, dtype=torch.bool))
    figures = borders.take()
    assert figures["border"] == pytest.approx(border + 0.06, abs=1e-6)
    assert figures["inside"] == pytest.approx(inside + 0.06, abs=1e-6)
    assert borders.shows == (shows or "background")
    assert "warning" not in borders.described()
    borders.add(ringed(0.9, 0.1), valid)  # the next epoch decides anew
    assert borders.take()["border"] == pytest.approx(0.9) and borders.shows == "background"
    borders.add(ringed(0.51, 0.52), valid)
    borders.take()
    assert borders.shows == "objects" and "warning: the two hardly differ" in borders.described()


def test_the_border_is_as_wide_as_published() -> None:
    assert border_of(28, 28, CPU).view(28, 28)[14].nonzero().flatten().tolist() == [0, 1, 2, 3, 24, 25, 26, 27]
    assert border_of(4, 5, CPU).view(4, 5)[1].tolist() == [True, False, False, False, True]


def test_sums_of_an_epoch_are_stored() -> None:
    first, second = Borders(), Borders()
    first.add(ringed(0.2, 0.4), torch.ones(3, dtype=torch.bool))
    second.load_state_dict(first.state_dict(), CPU)
    for borders in (first, second):
        borders.add(ringed(0.4, 0.6), torch.ones(3, dtype=torch.bool))
    assert first.take() == second.take() == pytest.approx({"border": 0.3, "inside": 0.5})


def test_what_is_not_observed_is_no_part_of_the_border() -> None:
    chosen, found = criterion(), sides()
    arguments = found, torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.bool)
    with chosen.unobserved():
        chosen(*arguments)
    assert chosen.borders.take() == {}
    chosen(*arguments)
    assert chosen.borders.take().keys() == {"border", "inside"}
