"""Test-time views: what else of an image the model is shown, its logits averaged over all of them."""

from typing import Literal, get_args

from fasttrain.base.errors import ConfigError
from fasttrain.loading.views import EvalView

TestTimeViews = Literal["none", "hflip", "fivecrop", "tencrop", "multiscale", "shift"]

_CORNERS = ("top_left", "top_right", "bottom_left", "bottom_right")
_SCALES = (0.75, 1.0, 1.25)


def test_time_views(view: EvalView, tta: str, patch: int = 1) -> list[EvalView]:
    """The eval views to average.

    ``hflip`` adds the view's mirror image. ``fivecrop`` takes centre and corners, ``tencrop`` also their mirror images.
    A five-crop of an eval view with ``crop_pct`` 1 on a square image is five times the same crop, so it is taken at 7/8
    of the side at the most. ``multiscale`` shows the view itself, and the same part of the image at about 3/4 and 5/4
    of its side.

    ``shift`` is for small images: the view and its mirror image, each as it is, and moved by a pixel to the upper left
    and to the lower right (Jordan's airbench weighs the six otherwise, arXiv 2404.00498).

    Args:
        patch: what the sides of ``multiscale`` are multiples of, in pixels (see `OpenedModel.patch`).

    Raises:
        ConfigError: not a known `tta`.
    """
    if tta == "none":
        return [view]
    if tta == "hflip":
        return _with_mirrored([view])
    if tta == "fivecrop":
        return _five_crops(view)
    if tta == "tencrop":
        return _with_mirrored(_five_crops(view))
    if tta == "multiscale":
        return [view.model_copy(update={"size": side}) for side in _sides(view.size, patch)]
    if tta == "shift":
        return _with_mirrored([view.model_copy(update={"shift": (by, by)}) for by in (0, -1, 1)])
    raise ConfigError(f"--tta {tta} is not known; choose one of {', '.join(get_args(TestTimeViews))}")


test_time_views.__test__ = False  # type: ignore[attr-defined]  # a test collector must not take it for a test


def _with_mirrored(views: list[EvalView]) -> list[EvalView]:
    return [view.model_copy(update={"hflip": mirrored}) for view in views for mirrored in (False, True)]


def _five_crops(view: EvalView) -> list[EvalView]:
    cropped = view.model_copy(update={"crop_pct": min(view.crop_pct, 0.875)})
    return [cropped, *(cropped.model_copy(update={"anchor": corner}) for corner in _CORNERS)]


def _sides(side: int, patch: int) -> list[int]:
    """`side`, and its neighbours in `_SCALES`, in steps coarse enough that the strides of most networks divide them."""
    step = patch
    while 2 * step <= min(32, side / 6):
        step *= 2
    return [side if scale == 1 else max(1, round(scale * side / step)) * step for scale in _SCALES]
