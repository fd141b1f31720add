"""What depends on a whole batch is the same over several processes as in one that has it all."""

from pathlib import Path

import pytest

from .launched import told

SCRIPT = Path(__file__).with_name("loss_steps.py")


def test_gradient_statistics_of_two_ranks_are_those_of_the_whole_batch() -> None:
    one, two = told(1, SCRIPT, "eql"), told(2, SCRIPT, "eql")
    assert min(one["statistics"]["positive"][:3]) > 0 and one["statistics"]["positive"][3] == 0
    for part in ("statistics", "weights"):
        for name, values in one[part].items():
            assert two[part][name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


@pytest.mark.thorough
def test_the_encoder_sees_the_images_of_all_ranks_and_gradients_find_their_way_back() -> None:
    one, two, alone = told(1, SCRIPT, "former"), told(2, SCRIPT, "former"), told(2, SCRIPT, "former-alone")
    for name, values in one["weights"].items():
        assert two["weights"][name] == pytest.approx(values, rel=1e-3, abs=1e-5), name
    assert alone["weights"]["stem.weight"] != pytest.approx(one["weights"]["stem.weight"], rel=1e-3, abs=1e-5)
