"""Test-time views: what else of an image the model is shown, its logits averaged over all of them."""

from typing import Literal, get_args

from fasttrain.base.errors import ConfigError
from fasttrain.loading.views import EvalView

TestTimeViews = Literal["none", "hflip", "fivecrop", "shift"]

_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")


def test_time_views(view: EvalView, tta: str) -> list[EvalView]:
    """The eval views to average: the view itself, its mirror image (``hflip``), or centre and corners (``fivecrop``).

    ``shift`` is for small images: the view and its mirror image, each as it is, and moved by a pixel to the upper left
    and to the lower right (Jordan's airbench weighs the six otherwise, arXiv 2404.00498).

    A five-crop of an eval view with ``crop_pct`` 1 on a square image is five times the same crop, so it is taken at
    7/8 of the side at the most.
    """
    if tta not in get_args(TestTimeViews):
        raise ConfigError(f"--tta {tta} is not known; choose one of {', '.join(get_args(TestTimeViews))}")
    if tta == "none":
        return [view]
    if tta == "hflip":
        return [view, view.model_copy(update={"hflip": True})]
    if tta == "shift":
        moved = [view.model_copy(update={"shift": (by, by)}) for by in (0, -1, 1)]
        return [one.model_copy(update={"hflip": flipped}) for one in moved for flipped in (False, True)]
    cropped = view.model_copy(update={"crop_pct": min(view.crop_pct, 0.875)})
    return [cropped, *(cropped.model_copy(update={"anchor": corner}) for corner in _CORNERS)]


test_time_views.__test__ = False  # type: ignore[attr-defined]  # a test collector must not take it for a test
