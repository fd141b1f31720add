"""Ensembles from files to a file."""

import numpy as np
import pytest

from fasttrain.base.errors import ScoresError
from fasttrain.scores.ensembles.ensemble import EnsembleSettings, ensemble, ensemble_files
from fasttrain.scores.files import opened
from fasttrain.scores.measures.figures import Figures
from fasttrain.scores.table import ScoreTable

from ..made_tables import models, softmax, written

SETTINGS = [
    {},
    {"space": "logits", "weights": (2.0, 0.0, 1.0), "dtype": "float16"},
    {"space": "log_probs", "temperatures": (1.0, 2.0, 3.0)},
    {"method": "rank"},
    {"method": "vote", "dtype": "float16"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_files_give_what_memory_gives_in_any_blocks(tmp_path, monkeypatch, settings):
    tables = models((2.0, 1.0, 1.5))
    order = np.random.default_rng(0).permutation(300)
    tables[1] = ScoreTable([tables[1].ids[r] for r in order], tables[1].scores[order], tables[1].classes, "logits")
    wanted = ensemble(tables, **settings)
    monkeypatch.setattr(opened, "BLOCK_ENTRIES", 4 * 70)
    paths = written(tables, tmp_path, "t")
    report = ensemble_files(paths, tmp_path / "e.arrow", EnsembleSettings(**settings))
    got = ScoreTable.read(tmp_path / "e.arrow")
    assert got.scores.dtype == settings.get("dtype", "float32")
    np.testing.assert_array_equal(got.scores, wanted.scores)
    np.testing.assert_array_equal(got.labels, wanted.labels)
    assert (got.ids, got.classes, got.kind, got.meta) == (wanted.ids, wanted.classes, wanted.kind, wanted.meta)
    assert report["weights"] == wanted.meta["weights"]
    labels = got.labels
    probs = got.probs()
    assert report["top1"] == (got.argmax() == labels).mean()
    true = np.maximum(probs[np.arange(300), labels], 1e-8 if settings.get("method") == "vote" else 0)
    if settings.get("method") != "vote":  # there a class without a vote counts as the smallest number
        assert report["nll"] == pytest.approx(-np.log(true).mean(), rel=1e-5)
    assert report["ece"] == pytest.approx(calibration_error(probs, labels), abs=1e-6)


def calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    """15 bins, as in Guo et al., ICML 2017."""
    confidence, right, error = probs.max(1), probs.argmax(1) == labels, 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_figures_of_labelled_samples_alone(kind, dtype):
    table = models((1.0,))[0]
    probs = softmax(table.scores.astype(np.float64))
    scores = {"logits": table.scores, "log_probs": np.log(probs), "probs": probs}[kind].astype(dtype)
    table.labels[::3] = -1
    figures = Figures()
    for start in range(0, 300, 40):
        figures.add(scores[start : start + 40], kind, table.labels[start : start + 40])
    known = table.labels >= 0
    right, labels = probs[known], table.labels[known]
    found = figures.result()
    tolerance = 5e-3 if dtype == np.float16 else 1e-6
    assert found["top1"] == pytest.approx((right.argmax(1) == labels).mean(), abs=tolerance)
    assert found["nll"] == pytest.approx(-np.log(right[np.arange(len(labels)), labels]).mean(), abs=tolerance)
    assert found["ece"] == pytest.approx(calibration_error(right, labels), abs=2 * tolerance)
    assert Figures().result() == {}


def test_figures_stay_finite():
    figures = Figures()
    figures.add(np.array([[0.0, 1.0]], np.float32), "probs", np.array([0]))
    figures.add(np.array([[-np.inf, 1.0]], np.float32), "logits", np.array([0]))
    assert 100 < figures.result()["nll"] < 110
    assert figures.result()["ece"] == 1


def test_weights_are_fitted_from_files(tmp_path):
    paths = written(models((2.0, 0.5), prefix="t"), tmp_path, "t")
    labelled = written(models((2.0, 0.5)), tmp_path, "v")
    settings = EnsembleSettings(weights="fit", temperatures="fit")
    report = ensemble_files(paths, tmp_path / "e.arrow", settings, validation=labelled)
    assert report["weights"][0] > 0.6
    assert len(report["temperatures"]) == 2
    assert report["fit"]["fitted_on"] == 300
    assert ScoreTable.read(tmp_path / "e.arrow").meta["fit"] == report["fit"]


def test_every_header_is_checked_before_any_work(tmp_path, monkeypatch):
    """The last of many tables is a bad one; no score of the others was looked at."""
    paths = written(models((1.0, 2.0), prefix="t"), tmp_path, "t")
    other = ScoreTable(["x"], np.zeros((1, 4), np.float32), list("abcd"), "logits")
    other.write(tmp_path / "other.arrow")
    monkeypatch.setattr(opened, "first_bad_row", None)
    with pytest.raises(ScoresError, match=r"other\.arrow lacks 't0'"):
        ensemble_files([*paths, tmp_path / "other.arrow"], tmp_path / "e.arrow", EnsembleSettings())
    assert not list(tmp_path.glob("e.arrow*"))


def test_bad_scores_name_file_and_sample_and_leave_nothing(tmp_path):
    tables = models((1.0, 2.0), prefix="t")
    tables[1].scores[123] = [np.nan, 0, 0, 0]
    paths = written(tables, tmp_path, "t")
    with pytest.raises(ScoresError, match=r"t1\.arrow: the scores of 't123' are no logits"):
        ensemble_files(paths, tmp_path / "e.arrow", EnsembleSettings())
    assert not list(tmp_path.glob("e.arrow*"))


def test_results_that_no_type_holds_are_refused(tmp_path):
    tables = models((1.0, 2.0), prefix="t")
    with pytest.raises(ScoresError, match="'t0' are no logits: too large for float16"):
        ensemble(tables, space="logits", weights=[1e6, 1.0], dtype="float16")
    impossible = [np.full((300, 4), -np.inf, np.float32) for _ in range(2)]
    impossible[0][:, 0] = impossible[1][:, 1] = 0
    for table, scores in zip(tables, impossible, strict=True):
        table.scores, table.kind = scores, "log_probs"
    with pytest.raises(ScoresError, match="'t0' are no log_probs"):
        ensemble(tables, space="log_probs")
