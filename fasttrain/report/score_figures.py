"""Plots of score tables: sorted confidence, its histogram, counts by rank, agreement of models."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fasttrain.report.figures import COLOURS, INK, colours, draw_svg, name_ticks, short_name
from fasttrain.report.page import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

STEEP = 10  # times the median count: beyond, counts are drawn on a logarithmic scale
POINTS = 400  # of a curve; more than a screen shows
MAX_WRITTEN_TABLES = 12  # beyond, an agreement matrix has no numbers in its cells


def sorted_confidence(curves: Mapping[str, np.ndarray], caption: str = "") -> Figure:
    """Confidences (N,) of each of several labellings, from the surest sample to the least sure one."""

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for colour, (name, values) in zip(colours(len(curves)), curves.items(), strict=True):
            ordered = np.sort(values)[::-1]
            places = _thinned(len(ordered))
            axes.plot((places + 1) / len(ordered), ordered[places], color=colour, linewidth=1.8, label=short_name(name))
        axes.set_xlabel("share of the samples")
        axes.set_ylabel("confidence")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        if len(curves) > 1:
            canvas.legend(loc="outside upper left", ncols=2)

    return Figure(draw_svg(draw, 4.8, 3.3), caption, f"Sorted confidence: {', '.join(curves)}", wide=False)


def confidence_histogram(counts: np.ndarray, caption: str = "") -> Figure:
    """Samples by confidence: counts (B,) of bins of equal width from 0 to 1."""
    width = 1 / len(counts)

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.grid(axis="x", visible=False)
        axes.bar((np.arange(len(counts)) + 0.5) * width, counts, width * 0.92, color=COLOURS[0])
        axes.set_xlim(0, 1)
        axes.set_xlabel("confidence")
        axes.set_ylabel("samples")

    return Figure(draw_svg(draw, 4.8, 3.3), caption, "Histogram of confidence", wide=False)


def ranked_counts(counts: Mapping[str, np.ndarray], caption: str = "") -> Figure:
    """Counts (C,) of the classes in several labellings, each from the most frequent class to the rarest one."""
    largest = max(float(values.max()) for values in counts.values())
    typical = max(float(np.median(values)) for values in counts.values())

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for colour, (name, values) in zip(colours(len(counts)), counts.items(), strict=True):
            places = _thinned(len(values))
            ordered = np.sort(values)[::-1]
            axes.plot(
                places + 1, ordered[places], color=colour, label=short_name(name), linewidth=1.8, drawstyle="steps"
            )
        axes.set_xlabel("class, by its rank")
        axes.set_ylabel("samples")
        if largest > STEEP * max(1.0, typical):
            axes.set_yscale("symlog")  # which has a place for 0, too
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")  # its own would be formulas
        axes.set_ylim(0, None)
        canvas.legend(loc="outside upper left", ncols=4)

    return Figure(draw_svg(draw, 10, 3.3), caption, f"Samples of each class by rank: {', '.join(counts)}")


def agreement_figure(names: Sequence[str], shares: np.ndarray, caption: str = "") -> Figure:
    """Shares (M, M) of samples that each pair of models predicts alike."""
    least = min(float(shares.min()), 0.5)
    side = float(np.clip(0.7 * len(names) + 2, 3.4, 8))

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.grid(False)
        axes.imshow(shares, cmap="Blues", vmin=least, vmax=1)
        axes.spines[:].set_visible(False)
        name_ticks(axes, names)
        if len(names) > MAX_WRITTEN_TABLES:
            return
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > (1 + least) / 2 else INK
            axes.text(column, row, f"{100 * share:.1f}", ha="center", va="center", color=colour, fontsize=8)

    return Figure(draw_svg(draw, side, side), caption, f"Agreement of {', '.join(names)}", wide=False)


def _thinned(count: int) -> np.ndarray:
    """Indices of at most `POINTS` places among `count`, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
