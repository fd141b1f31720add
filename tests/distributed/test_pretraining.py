"""Learning without labels over several processes."""

import runpy
from pathlib import Path

import pytest

from .launched import told

SCRIPT = Path(__file__).with_name("pretrain_steps.py")


def test_two_ranks_deal_their_samples_and_share_one_queue() -> None:
    alone, two = runpy.run_path(str(SCRIPT))["moco"](False), told(2, SCRIPT)
    for kind in ("plain", "normalised"):
        assert two[kind]["same_queues"]
    # Without batch normalisation it does not matter who is with whom: all is that of one process.
    for name in ("queue", "weights"):
        for mine, theirs in zip(alone[name], two["plain"][name], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert alone["figures"] == pytest.approx(two["plain"]["figures"], rel=1e-4)
    # With it, keys are made in other company than queries.
    queried, keyed = two["normalised"]["queried"], two["normalised"]["keyed"]
    assert queried == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert sorted(keyed[0] + keyed[1]) == list(range(8)) and {*keyed[0]} not in [{*group} for group in queried]
    assert two["mae_in_step"]
