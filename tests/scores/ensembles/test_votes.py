"""Rank averaging and agreement-weighted votes."""

import numpy as np
import pytest
from scipy.stats import rankdata

from fasttrain.scores.ensembles.ensemble import ensemble
from fasttrain.scores.ensembles.votes import agreement, count_ties, mean_ranks
from fasttrain.scores.table import ScoreTable

from ..made_tables import models


def test_ranks_are_scipys():
    generator = np.random.default_rng(0)
    for shape in ((1, 1), (5, 2), (40, 30)):
        scores = generator.integers(0, 6, shape).astype(np.float16)  # with many that are equal
        scores[generator.random(shape) < 0.1] = -np.inf
        scores[generator.random(shape) < 0.1] = -0.0
        np.testing.assert_array_equal(mean_ranks(scores), rankdata(scores, axis=1))
        single = generator.normal(size=shape).round(1).astype(np.float32) * np.float32(1e20)
        np.testing.assert_array_equal(mean_ranks(single), rankdata(single, axis=1))


def test_rank_average():
    tables = models((1.0, 2.0, 0.5))
    got = ensemble(tables, method="rank", weights=[1.0, 2.0, 1.0])
    ranks = [rankdata(table.scores, axis=1) for table in tables]
    np.testing.assert_allclose(got.scores, (ranks[0] + 2 * ranks[1] + ranks[2]) / 40, rtol=1e-6)
    assert got.kind == "probs"
    assert got.meta["combination"] == "rank"
    stretched = [ScoreTable(t.ids, t.scores**3, t.classes, "logits") for t in tables]  # keeps every order
    np.testing.assert_array_equal(ensemble(stretched, method="rank").scores, ensemble(tables, method="rank").scores)
    assert not np.allclose(ensemble(stretched).scores, ensemble(tables).scores)


def test_agreement_counts_with_the_majority():
    votes = np.array([[0, 0, 1], [2, 1, 2], [1, 1, 1], [0, 1, 2], [3, 2, 2]], np.int32)
    # Majorities 0, 2, 1, 0 (of three equal ones the lowest), 2.
    np.testing.assert_allclose(agreement(votes), [4 / 5, 3 / 5, 3 / 5])


def test_ties_are_counted():
    votes = np.array([[0, 0, 1, 1], [2, 1, 2, 0], [1, 1, 1, 1], [0, 1, 2, 3]], np.int32)
    assert count_ties(votes, np.full(4, 0.25)) == 2
    assert count_ties(votes, np.array([0.4, 0.2, 0.2, 0.2])) == 0
    assert count_ties(votes, np.array([0.3, 0.2, 0.4, 0.1])) == 1
    tables = models((2.0, 1.0))  # two that differ are a tie where their weights are equal
    differ = int((tables[0].argmax() != tables[1].argmax()).sum())
    assert differ > 0
    assert ensemble(tables, method="vote", weights="uniform").meta["tied"] == differ
    assert ensemble(tables, method="vote", weights=(0.6, 0.4)).meta["tied"] == 0


def test_votes_weighted_by_agreement():
    """The three steps of the adaptive voting, plainly."""
    tables = models((3.0, 2.5, 2.0, 0.0))
    votes = np.stack([table.argmax() for table in tables], 1)
    majority = np.array([np.bincount(row).argmax() for row in votes])
    weights = (votes == majority[:, None]).mean(0)
    wanted = np.array([np.bincount(row, weights, 4) for row in votes]) / weights.sum()
    got = ensemble(tables, method="vote")
    np.testing.assert_allclose(got.scores, wanted, rtol=1e-6)
    np.testing.assert_allclose(got.meta["agreement"], weights)
    assert weights[3] < weights[0] - 0.3
    equal = ensemble(tables, method="vote", weights="uniform")
    assert equal.argmax().tolist() == majority.tolist()
    assert (equal.scores != got.scores).any()


def test_votes_are_joined_by_name():
    tables = models((2.0, 1.0, 0.5))
    order = np.random.default_rng(0).permutation(len(tables[1]))
    ids = [tables[1].ids[row] for row in order]
    turned = ScoreTable(ids, tables[1].scores[order][:, ::-1].copy(), tables[1].classes[::-1], "logits")
    for method in ("vote", "rank"):
        got = ensemble([tables[0], turned, tables[2]], method=method)
        np.testing.assert_allclose(got.scores, ensemble(tables, method=method).scores, rtol=1e-6)


@pytest.mark.parametrize("method", ["vote", "rank"])
def test_stored_accuracies_weigh_too(method):
    tables = models((2.0, 1.0))
    for table, top1 in zip(tables, (0.75, 0.5), strict=True):
        table.meta["validation"] = {"val_top1": top1}
    assert ensemble(tables, method=method, weights="accuracy").meta["weights"] == pytest.approx([0.6, 0.4])
