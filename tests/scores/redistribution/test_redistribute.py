"""Tables in, labelled tables and reports out; settings that go together."""

import numpy as np
import pytest

from fasttrain.base.config import load_settings
from fasttrain.base.errors import ConfigError, ScoresError
from fasttrain.scores.redistribution.greedy_k import greedy_k, greedy_k_in_blocks
from fasttrain.scores.redistribution.redistribute import RedistributeSettings, redistribute, sensitivity
from fasttrain.scores.table import ScoreTable
from tests.scores.plan_cases import biased, log_softmax, table_of


def test_a_class_of_prior_0_stays_empty(tmp_path):
    log_probs, _ = biased(90, 4)
    prior = tmp_path / "prior.csv"
    prior.write_text("class,count\nc0,10\nc1,0\nc2,10\nc3,10\n")
    result, report = redistribute(table_of(log_probs), RedistributeSettings(prior=str(prior)))
    assert report["converged"]
    assert not (result.assigned == 1).any()
    certain = log_probs.copy()
    certain[0] = [-np.inf, 0, -np.inf, -np.inf]
    with pytest.raises(ScoresError, match="prior above 0"):
        redistribute(table_of(certain), RedistributeSettings(prior=str(prior)))


def test_it_beats_argmax_and_the_heuristic_on_a_biased_classifier():
    log_probs, labels = biased(1000, 20)
    table = table_of(log_probs, labels)
    _, report = redistribute(table)
    _, heuristic = redistribute(table, RedistributeSettings(method="greedy-k", k=45))
    assert report["top1_after"] > report["top1_before"] + 0.1
    assert report["top1_after"] > heuristic["top1_after"]
    assert heuristic["converged"] is None


def test_the_report_and_the_table():
    log_probs, labels = biased(200, 5)
    source = table_of(log_probs, labels)
    result, report = redistribute(source)
    assert result.assigned is not None
    assert result.assigned_p is not None
    np.testing.assert_array_equal(result.scores, source.scores)
    np.testing.assert_array_equal(result.labels, source.labels)
    assert report["changed"] == int((result.assigned != source.argmax()).sum())
    counts = np.bincount(result.assigned, minlength=5)
    assert (report["count_min"], report["count_max"]) == (counts.min(), counts.max())
    assert ((result.assigned_p > 0) & (result.assigned_p <= 1)).all()
    assert result.meta["redistribution"]["prior"] == "uniform"
    again, _ = redistribute(source)
    assert again.assigned_p.tobytes() == result.assigned_p.tobytes()


def test_the_heuristic_as_published():
    # class 2 was predicted never: it takes its best sample, though class 1 then has none
    probs = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.5, 0.4]])
    assert greedy_k(probs, 1).tolist() == [0, 0, 2]
    assert greedy_k(probs, 0).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lower": "2x"}, "at least 45 and at most"),
        ({"lower": "30", "upper": "40"}, "ask for 120 samples, there are 90"),
        ({"upper": "0.5x", "lower": "0"}, "room for 45 of 90"),
        ({"lower": "many"}, "not 'many'"),
        ({"prior": "absent.csv"}, "absent.csv"),
    ],
)
def test_impossible_bounds_are_sentences(changes, message):
    log_probs, _ = biased(90, 4)
    with pytest.raises(ScoresError, match=message):
        redistribute(table_of(log_probs), RedistributeSettings(**changes))


def test_k_belongs_to_greedy_k():
    for values in ({"method": "greedy-k"}, {"k": 3}):
        with pytest.raises(ConfigError, match="greedy-k"):
            load_settings(RedistributeSettings, values)


def test_sensitivity_does_not_look_at_labels():
    log_probs, labels = biased(200, 5)
    with_labels, without = table_of(log_probs, labels), table_of(log_probs)
    assert sensitivity(with_labels, RedistributeSettings()) == sensitivity(without, RedistributeSettings())
    rows = sensitivity(without, RedistributeSettings())
    assert {row["agreement"] for row in rows if (row["eps"], row["lower"]) == (0.2, 0.9)} == {1.0}


def test_default_bounds_need_few_iterations():
    log_probs, _ = biased(900, 30)
    assert redistribute(table_of(log_probs))[1]["iterations"] < 100


def test_a_plan_of_half_precision_scores_gives_the_same_labels():
    log_probs, _ = biased(2000, 20)
    table = table_of(log_probs)
    half = ScoreTable(table.ids, table.scores.astype(np.float16), table.classes, "log_probs")
    same = redistribute(table)[0].predictions("assigned") == redistribute(half)[0].predictions("assigned")
    assert same.mean() >= 0.998


def test_logits_and_their_log_probabilities_give_one_plan():
    log_probs, _ = biased(200, 5)
    shifted = log_probs + np.random.default_rng(0).normal(size=(200, 1)) * 5
    table = table_of(log_probs)
    logits = ScoreTable(table.ids, shifted.astype(np.float32), table.classes, "logits")
    one, two = redistribute(table)[0], redistribute(logits)[0]
    np.testing.assert_array_equal(one.assigned, two.assigned)
    np.testing.assert_allclose(one.assigned_p, two.assigned_p, atol=1e-3)


def test_a_missing_gpu_is_a_sentence(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ScoresError, match="no CUDA device"):
        redistribute(table_of(biased(20, 2)[0]), RedistributeSettings(device="cuda"))


def test_a_class_that_is_possible_for_none_is_refused_at_once():
    log_probs, _ = biased(40, 4)
    log_probs[:, 2] = -np.inf
    with pytest.raises(ScoresError, match="class 2"):
        redistribute(table_of(log_softmax(log_probs)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equality": True, "lower": "0.5x"}, "no room for lower"),
        ({"method": "greedy-k", "k": 3, "eps": 0.5}, "has no eps"),
        ({"method": "greedy-k", "k": 3, "round": "exact", "prior": "uniform"}, "has no prior, round"),
    ],
)
def test_settings_without_effect_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(RedistributeSettings, changes)


def test_the_heuristic_takes_a_sample_twice_and_the_last_class_has_it():
    # classes 1 and 2 both want row 0, served in order: class 2 keeps it and class 1 stays empty
    probs = np.array([[0.4, 0.3, 0.3], [0.8, 0.1, 0.1], [0.9, 0.05, 0.05]])
    assert greedy_k(probs, 1).tolist() == [2, 0, 0]


def test_a_table_on_a_device_gets_the_same_labels(monkeypatch):
    kernel = pytest.importorskip("fasttrain.kernels.softmax_colsum_torch")
    log_probs, _ = biased(200, 9)
    expected, _ = redistribute(table_of(log_probs), RedistributeSettings(round="exact", equality=True))
    monkeypatch.setattr(
        "fasttrain.scores.redistribution.passes._on_device", lambda scores, _: kernel.TorchColumnSums(scores, "cpu")
    )
    settings = RedistributeSettings(round="exact", equality=True, device="cuda")
    got, report = redistribute(table_of(log_probs), settings)
    np.testing.assert_array_equal(got.assigned, expected.assigned)
    assert report["converged"]


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_heuristic_is_the_same_in_blocks_of_rows(k):
    probs = np.random.default_rng(k).integers(0, 4, (7, 5)) / 3.0  # full of ties
    blocks = [(slice(start, start + 2), probs[start : start + 2]) for start in range(0, 7, 2)]
    assert greedy_k_in_blocks(probs.argmax(1), blocks, 5, k).tolist() == greedy_k(probs, k).tolist()
