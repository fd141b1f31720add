"""Mapping objects over several processes."""

import runpy
from pathlib import Path

import pytest

from .launched import told

SCRIPT = Path(__file__).with_name("object_steps.py")


def test_images_are_compared_with_those_of_all_ranks() -> None:
    """Two processes of four images each are one of eight."""
    alone, two = runpy.run_path(str(SCRIPT))["steps"](), told(2, SCRIPT)
    assert two["same_weights"]
    for mine, theirs in zip(alone["weights"], two["weights"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert alone["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert alone["figures"] == pytest.approx(two["figures"], rel=1e-5)
