"""Plots: the numbers in them, and that no name or size breaks them."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from fasttrain.report.figures import confusion_counts, confusion_matrix, label_counts, training_curves
from fasttrain.report.page import Figure

HOSTILE = ["$\\foo{$", "</svg><script>alert(1)</script>", "-->", "_hidden", "猫", "x" * 200]


def assert_plain_svg(figure: Figure) -> None:
    root = ET.fromstring(figure.image.data)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert root.tag.endswith("svg")
    assert not tags & {"script", "foreignObject"}
    for element in root.iter():
        for key, value in element.attrib.items():
            assert not key.endswith("href") or value.startswith(("#", "data:image/png"))


def test_confusion_counts() -> None:
    counts = confusion_counts(np.array([0, 0, 1, -1, 2]), np.array([0, 1, 1, 2, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("classes", [2, 21, 50])
def test_any_number_of_classes(classes: int) -> None:
    random = np.random.default_rng(classes)
    true, predicted = random.integers(-1, classes, 200), random.integers(0, classes, 200)
    names = [f"class {index}" for index in range(classes)]
    assert_plain_svg(confusion_matrix(true, predicted, names))
    counts = np.bincount(predicted, minlength=classes)
    assert_plain_svg(label_counts(names, {"before": counts, "after": counts}, np.full(classes, 200 / classes)))


def test_hostile_names() -> None:
    labels = np.arange(len(HOSTILE))
    assert_plain_svg(confusion_matrix(labels, labels, HOSTILE))
    assert_plain_svg(label_counts(HOSTILE, {name: np.ones(len(HOSTILE)) for name in HOSTILE}))
    assert_plain_svg(training_curves({name: [{"epoch": 0, "train_loss": 1.0}] for name in HOSTILE}))


def test_curves_show_what_was_recorded_and_repeat_to_the_byte() -> None:
    with_val = [{"epoch": e, "train_loss": 1 / (e + 1), "val_top1": e / 4, "val_loss": None} for e in range(3)]
    without = [{"epoch": 0, "train_loss": 2.0, "lr": 1e-3}]
    runs = {"a": with_val, "b": without}
    figure = training_curves(runs)
    assert_plain_svg(figure)
    text = figure.image.data.decode()
    assert "Validation top-1" in text and "Learning rate" in text and "Validation loss" not in text
    assert training_curves(runs).image.data == figure.image.data


def test_nothing_recorded() -> None:
    with pytest.raises(ValueError, match="no curves"):
        training_curves({"a": []})
