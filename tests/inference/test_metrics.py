import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, precision_recall_fscore_support, top_k_accuracy_score

from fasttrain.inference.labels import ClassMismatchError, class_map, map_labels
from fasttrain.inference.metrics import ClassificationMeter


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_figures_agree_with_scikit_learn_whatever_the_batch_size(batch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 9, generator=generator)
    labels = torch.randint(0, 7, (50,), generator=generator)  # classes 7 and 8 never occur
    meter = ClassificationMeter(9, "cpu")
    for start in range(0, 50, batch):
        part = slice(start, start + batch)
        meter.add(logits[part], labels[part], torch.ones(len(labels[part]), dtype=torch.bool))
    result = meter.result()
    everything = list(range(9))
    probabilities = logits.softmax(1).double().numpy()
    probabilities /= probabilities.sum(1, keepdims=True)
    assert result["samples"] == 50
    assert result["top1"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert result["top5"] == pytest.approx(top_k_accuracy_score(labels, logits.numpy(), k=5, labels=everything))
    assert result["loss"] == pytest.approx(log_loss(labels, probabilities, labels=everything), rel=1e-6)
    present = np.unique(labels)
    assert result["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(1), labels=present, average="macro"))
    assert int(meter.confusion().sum()) == 50


def test_masked_and_unlabelled_samples_do_not_count():
    logits = torch.eye(4)
    meter = ClassificationMeter(4, "cpu")
    meter.add(logits, torch.tensor([0, 1, -1, 0]), torch.tensor([True, False, True, True]))
    result = meter.result()
    assert result["samples"] == 2
    assert result["top1"] == 0.5
    empty = ClassificationMeter(4, "cpu").result()
    assert empty == {"samples": 0, "top1": None, "top5": None, "loss": None, "macro_f1": None}


def test_not_finite_logits_of_masked_samples_do_not_spoil_the_sums():
    logits = torch.tensor([[1.0, 0.0], [float("nan"), 0.0]])
    meter = ClassificationMeter(2, "cpu")
    meter.add(logits, torch.tensor([0, 1]), torch.tensor([True, False]))
    assert np.isfinite(meter.result()["loss"])


def test_classes_are_joined_by_name():
    assert class_map(["c", "a"], ["a", "b", "c"], 3) == [2, 0]
    assert class_map(None, ["a", "b"], 2) == [0, 1]
    assert class_map(["x", "y"], None, 2) == [0, 1]
    assert class_map(["x", "y"], ["a", "b"], 2) == [0, 1]
    with pytest.raises(ClassMismatchError, match="'z'"):
        class_map(["a", "z"], ["a", "b"], 2)
    with pytest.raises(ClassMismatchError, match="--classes"):
        class_map(["x", "y", "z"], ["a", "b"], 2)
    assert map_labels(torch.tensor([0, -1, 1]), torch.tensor([2, 0])).tolist() == [2, -1, 0]


def test_figures_of_each_class_agree_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(60, 4, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    meter = ClassificationMeter(4, "cpu")
    meter.add(logits, labels, torch.ones(60, dtype=torch.bool))
    _, recall, f1, support = precision_recall_fscore_support(labels, logits.argmax(1), labels=range(4), zero_division=0)
    found = meter.per_class()
    assert [figures.samples for figures in found] == support.tolist()
    for figures, expected_recall, expected_f1 in zip(found[:3], recall, f1, strict=False):
        assert (figures.accuracy, figures.f1) == pytest.approx((expected_recall, expected_f1))
    assert found[3].accuracy is None and found[3].f1 is None and found[3].predicted > 0  # no sample is of this class
