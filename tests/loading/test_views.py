import json
from typing import Any

import pytest

from fasttrain.base.errors import ConfigError
from fasttrain.loading.views import EvalView, TrainView, eval_view, parse_view, train_view


def test_views_survive_being_stored() -> None:
    for view in (
        train_view(160, scale=(0.25, 1), vflip=0.1, color_jitter=(0.4, 0.3, 0.2, 0.1), interpolation="bicubic"),
        eval_view(
            288, crop_pct=0.95, crop_mode="squash", anchor="top_left", hflip=True, mean=(0.5,) * 3, std=(0.5,) * 3
        ),
    ):
        stored = json.loads(json.dumps(view.model_dump(mode="json")))
        assert parse_view(stored) == view
        assert parse_view(view.model_dump()) == view


def test_one_number_of_jitter_leaves_hue_alone() -> None:
    assert train_view(color_jitter=0.4).color_jitter == (0.4, 0.4, 0.4, 0.0)
    assert train_view(color_jitter=(0.1, 0.2, 0.3)).color_jitter == (0.1, 0.2, 0.3, 0.0)
    assert train_view().kind == "train" and eval_view().kind == "eval"


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 0},
        {"scale": (0.5, 0.2)},
        {"scale": (0.0, 1.0)},
        {"ratio": (2.0, 1.0)},
        {"hflip": 1.5},
        {"color_jitter": -0.1},
        {"color_jitter": (0.1, 0.1)},
        {"color_jitter": (0.1, 0.1, 0.1, 0.6)},
        {"interpolation": "nearest"},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (float("nan"), 0.0, 0.0)},
    ],
)
def test_impossible_train_views_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="train view"):
        train_view(**settings)


@pytest.mark.parametrize("settings", [{"crop_pct": 0}, {"crop_pct": 1.2}, {"crop_mode": "border"}, {"anchor": "left"}])
def test_impossible_eval_views_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="eval view"):
        eval_view(**settings)


def test_unknown_settings_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hflip'"):
        train_view(hfilp=0.1)


@pytest.mark.parametrize(
    "stored", [{}, {"kind": "test"}, {"kind": ["train"]}, {"kind": "eval", "size": "x"}, [1], None]
)
def test_damaged_stored_views_are_refused(stored: Any) -> None:
    with pytest.raises(ConfigError):
        parse_view(stored)


def test_views_are_immutable() -> None:
    for view in (TrainView(), EvalView()):
        with pytest.raises(ValueError, match="frozen"):
            view.size = 10
