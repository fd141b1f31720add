"""Plots for reports, as SVG: training curves, confusion matrix, label counts. Arrays and plain records in, figures out.

Figures are drawn on a canvas of their own, so nothing of matplotlib's global state is read or changed but its fonts.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttrain.report.page import Figure, Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS = ("#2563eb", "#e8710a", "#0f9d78", "#9333ea", "#d6336c", "#64748b", "#0891b2", "#a16207")
INK, MUTED, LINE = "#1c2430", "#5d6878", "#e2e6ec"
MAX_WRITTEN_CLASSES = 20  # beyond, a confusion matrix has no numbers in its cells
MAX_NAMED_CLASSES = 40  # beyond, class names would not be legible
MAX_NAME = 24

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # class names are text, whatever dollar signs they hold
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "svg.hashsalt": "fasttrain",  # the same figure gives the same bytes
}

CURVES = (
    ("train_loss", "Training loss"),
    ("loss_source", "Loss of the source"),
    ("loss_mix", "Loss of mixed images"),
    ("loss_distance", "Distance of features"),
    ("confident", "Share of confident pixels"),
    ("val_loss", "Validation loss"),
    ("val_top1", "Validation top-1"),
    ("val_miou", "Validation mIoU"),
    ("lr", "Learning rate"),
    ("images_per_s", "Images/s"),
    ("data_wait_fraction", "Data wait (share of time)"),
)
FROM_ZERO = {"images_per_s", "data_wait_fraction", "confident"}  # their small changes are noise, not news


def training_curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], caption: str = "") -> Figure:
    """One small plot for each figure that a run recorded, over its epochs; a line a run.

    Args:
        runs: name of each run to its lines of ``metrics.jsonl``; figures that no run has are left out.

    Raises:
        ValueError: there is nothing to plot.
    """
    present = [(key, title) for key, title in CURVES if any(_curve(records, key)[0] for records in runs.values())]
    if not present:
        raise ValueError(f"none of the runs {', '.join(runs)} recorded an epoch, so there are no curves to plot")
    columns = min(3, len(present))
    rows = -(-len(present) // columns)

    def draw(canvas: "Canvas") -> None:
        grid = canvas.subplots(rows, columns, squeeze=False).ravel()
        for axes, (key, title) in zip(grid, present, strict=False):
            for colour, (name, records) in zip(colours(len(runs)), runs.items(), strict=True):
                axes.plot(
                    *_curve(records, key), color=colour, label=short_name(name), linewidth=1.8, marker="o", markersize=3
                )
            axes.set_title(title)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if key in FROM_ZERO:
                axes.set_ylim(0, max(1.05 * axes.dataLim.ymax, 0.01))
        for axes in grid[len(present) :]:
            axes.remove()
        for axes in grid[max(0, len(present) - columns) : len(present)]:
            axes.set_xlabel("epoch")
        if len(runs) > 1:
            handles, labels = grid[0].get_legend_handles_labels()
            canvas.legend(handles, labels, loc="outside upper left", ncols=4)

    figure = draw_svg(draw, 3.3 * columns, 2.2 * rows + 0.4)
    return Figure(figure, caption, f"Training curves of {', '.join(runs)}", wide=columns > 2)


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, names: Sequence[str], caption: str = "") -> Figure:
    """How often each true class (a row) was taken for each class (a column); shades are shares of the row.

    Args:
        true, predicted: class indices, int (N,). Samples whose true class is unknown (negative) are left out.
        names: of the classes.
    """
    counts = confusion_counts(true, predicted, len(names))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = float(np.clip(0.36 * len(names) + 1.2, 3.2, 8.0))

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.grid(False)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.spines[:].set_visible(False)
        name_ticks(axes, names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if len(names) > MAX_WRITTEN_CLASSES:
            return
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else INK
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)

    return Figure(draw_svg(draw, side, side), caption, "Confusion matrix", wide=len(names) > MAX_WRITTEN_CLASSES)


def confusion_counts(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 (C, C), true classes by predicted ones; rows of `true` below 0 are left out."""
    true, predicted = np.asarray(true), np.asarray(predicted)
    known = true >= 0
    flat = np.bincount(true[known] * classes + predicted[known], minlength=classes * classes)
    return flat.reshape(classes, classes)


def label_counts(
    names: Sequence[str], counts: Mapping[str, np.ndarray], prior: np.ndarray | None = None, caption: str = ""
) -> Figure:
    """Samples of each class in several labellings side by side, and what the known prior asks for.

    Args:
        names: of the classes.
        counts: name of each labelling to its counts (C,).
        prior: expected counts (C,), drawn as a line across each class.
    """
    classes, bars = len(names), len(counts)
    positions = np.arange(classes)

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.grid(axis="x", visible=False)
        width = 0.8 / bars
        for index, (colour, (name, values)) in enumerate(zip(colours(bars), counts.items(), strict=True)):
            axes.bar(
                positions - 0.4 + width * (index + 0.5), values, width * 0.92, color=colour, label=short_name(name)
            )
        if prior is not None:
            axes.hlines(prior, positions - 0.47, positions + 0.47, color=INK, linewidth=1.4, label="known prior")
        name_ticks(axes, names, both=False)
        axes.set_xlim(-0.6, classes - 0.4)
        axes.set_ylabel("samples")
        canvas.legend(loc="outside upper left", ncols=4)

    alt = f"Samples of each class: {', '.join(counts)}"
    return Figure(draw_svg(draw, float(np.clip(0.55 * classes + 2, 6, 10)), 3.3), caption, alt)


def _curve(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Epochs (from 1) and values of one figure, where it was recorded."""
    points = [(record["epoch"] + 1, record[key]) for record in records if record.get(key) is not None]
    return [epoch for epoch, _ in points], [value for _, value in points]


def name_ticks(axes: "Axes", names: Sequence[str], both: bool = True) -> None:
    """Name the ticks of the horizontal axis, or of both, as far as the names would be legible."""
    if len(names) > MAX_NAMED_CLASSES:
        return
    short = [short_name(name) for name in names]
    steep = len(short) * max(map(len, short), default=0) > 90
    axes.set_xticks(range(len(names)), short, rotation=60 if steep else 0, ha="right" if steep else "center")
    if both:
        axes.set_xticks(range(len(names)), short, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), short)


def colours(count: int) -> list[str]:
    """So many colours of the palette, from its start again where it ends."""
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def short_name(name: str) -> str:
    """A name as it may stand in a figure."""
    # matplotlib leaves labels that start with an underscore out of legends.
    name = name.replace("\n", " ").lstrip("_") or "?"
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def draw_svg(draw: Any, width: float, height: float) -> Image:
    """Draw with `draw(canvas)` on a canvas of that many inches and return it as SVG."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    out = io.BytesIO()
    # Characters that the font lacks become boxes, which is no reason to warn the user.
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*missing from font.*")
        canvas = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(canvas)
        draw(canvas)
        canvas.savefig(out, format="svg", metadata={"Date": None})
    return Image(out.getvalue(), "svg")
