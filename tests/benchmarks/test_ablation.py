"""The parts of the ablation that need neither images nor weights."""

import importlib
import sys
from pathlib import Path

import pytest

from fasttrain.base.config import apply_overrides, load_settings
from fasttrain.training.settings import TrainSettings

STUDIES = Path(__file__).resolve().parents[2] / "benchmarks" / "studies"


@pytest.fixture(scope="module")
def ablation():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        yield importlib.import_module("ablation")
        for name in ("ablation", "cifar10", "pacs_sketch"):
            sys.modules.pop(name, None)


def test_each_family_is_a_setting_other_than_the_baseline(ablation):
    for task in ablation.TASKS.values():
        chosen = [
            load_settings(TrainSettings, apply_overrides({"data": "a"}, list(changes)))
            for changes in task.families.values()
        ]
        assert all(settings != chosen[0] for settings in chosen[1:])


def test_classes_become_rarer_from_the_first_to_the_last(ablation, tmp_path):
    sizes = [ablation.class_size(place, 10) for place in range(10)]
    assert sizes[0] == ablation.MOST and sizes[-1] == ablation.LEAST and sizes == sorted(sizes, reverse=True)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(ablation.MOST):
            (tmp_path / name / f"{number}.jpg").touch()
    chosen = ablation.long_tail(tmp_path)
    assert chosen == ablation.long_tail(tmp_path) and len(set(chosen)) == ablation.MOST + ablation.LEAST


def test_differences_are_of_equal_seeds(ablation):
    baseline = {"0": {"top1": 0.5}, "1": {"top1": 0.6}, "2": {"top1": 0.9}}
    found = ablation.difference({"0": {"top1": 0.6}, "1": {"top1": 0.9}, "3": {"top1": 0.0}}, baseline, "top1")
    assert found == {"seeds": {"0": 0.1, "1": 0.3}, "mean": 0.2, "standard_error": 0.1}
    assert ablation.difference({}, baseline, "top1")["mean"] is None
