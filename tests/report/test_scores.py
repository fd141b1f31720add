"""The page about score tables: it shows what it was given, for few and many classes, and nothing runs in it."""

from pathlib import Path

import numpy as np
import pytest

from fasttrain.report.score_figures import agreement_figure, confidence_histogram, ranked_counts, sorted_confidence
from fasttrain.report.scores import ScoresView, write_scores_page
from tests.report.test_figures import HOSTILE, assert_plain_svg


def view(name: str, classes: list[str], redistributed: bool = False, rows: int = 300) -> ScoresView:
    generator = np.random.default_rng(len(classes))
    true, predicted, assigned = generator.integers(0, len(classes), (3, rows))
    confidence = generator.random(rows)
    given = (assigned, generator.random(rows).astype(np.float32)) if redistributed else (None, None)
    histogram = np.histogram(confidence, 10, (0, 1))[0]
    true[::2] = -1
    return ScoresView(
        name, classes, {"samples": "300"}, true, predicted, confidence, histogram, *given, {"model": name}
    )


@pytest.mark.parametrize("classes", [3, 500])
@pytest.mark.parametrize("redistributed", [False, True])
def test_a_page_of_one_table(tmp_path: Path, classes: int, redistributed: bool) -> None:
    names = [f"class {number}" for number in range(classes)]
    html = write_scores_page([view("a.arrow", names, redistributed)], tmp_path / "s.html").read_text(encoding="utf-8")
    assert ("Re-distribution changed" in html) is redistributed
    assert ("after re-distribution" in html) is redistributed  # in what the figures' alternative text says
    assert ("True classes by the labels given." in html) is (classes == 3)
    assert ("order of their counts" in html) is (classes == 500)
    assert "<script" not in html
    assert len(html) < 1_000_000


def test_a_page_of_several_tables_with_hostile_names(tmp_path: Path) -> None:
    views = [view(name, HOSTILE) for name in HOSTILE]
    path = write_scores_page(views, tmp_path / "s.html", np.full((len(views), len(views)), 0.9))
    html = path.read_text(encoding="utf-8")
    assert html.index("Agreement") < html.index("Confidence of each sample")
    assert "<script>alert" not in html


def test_figures_hold_any_number_of_samples_and_repeat_to_the_byte() -> None:
    generator = np.random.default_rng(0)
    for rows in (1, 2, 100_000):
        values = {name: generator.random(rows) for name in HOSTILE[:3]}
        figure = sorted_confidence(values)
        assert_plain_svg(figure)
        assert len(figure.image.data) < 200_000
        assert sorted_confidence(values).image.data == figure.image.data
    assert_plain_svg(ranked_counts({name: generator.integers(0, 50, 5000) for name in HOSTILE}))
    steep = ranked_counts({"before": np.array([1000, 10, 0, 0, 0])})
    assert_plain_svg(steep)
    assert "mathdefault" not in steep.image.data.decode()
    assert_plain_svg(confidence_histogram(np.zeros(10, int)))
    for tables in (2, 30):
        assert_plain_svg(agreement_figure([f"{n}{HOSTILE[n % 6]}" for n in range(tables)], np.eye(tables)))
