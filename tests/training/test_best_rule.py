import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.training.best_rule import BestRule

FIGURES = {"val_top1": 0.5, "val_loss": 1.5, "val_snow_top1": 0.3, "val_fog_top1": 0.5, "val_raw": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("val_top1", 0.5),
        ("-val_loss", -1.5),
        ("val_top1 - 0.1 * val_loss / 3", 0.45),
        ("mean(val_snow_top1, val_fog_top1)", 0.4),
        ("min(val_snow_top1, val_fog_top1) + max(1, 2)", 2.3),
        ("val_top1 if val_loss <= 1.2 else None", None),
        ("val_top1 if val_loss <= 1.6 else None", 0.5),
        ("val_top1 if 1 < val_loss < 2 and not val_top1 > 0.9 else 0", 0.5),
        ("1 if val_top1 > 1 or val_loss > 1 else 0", 1.0),
        ("val_raw", None),
        ("val_raw + 1", None),
        ("1 / (val_top1 - 0.5)", None),
    ],
)
def test_what_an_expression_gives(text, expected):
    score = BestRule(text).score(FIGURES)
    assert score is None if expected is None else score == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "val_top1.__class__",
        "(lambda: 1)()",
        "[1][0]",
        "'a'",
        "max(val_top1, key=len)",
        "open(1)",
        "2 ** 9999999",
        "val_top1 if",
        "",
        "min()",
    ],
)
def test_all_else_is_refused(text):
    with pytest.raises(ConfigError, match=r"^best: "):
        BestRule(text)


def test_a_figure_that_there_is_not_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match="no figure 'val_top'; did you mean 'val_top1'"):
        BestRule("val_top").check_names(FIGURES)
    BestRule("mean(val_top1, val_loss)").check_names(FIGURES)
