"""The graph of a recipe as a figure: stages from top to bottom, with their states and times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fasttrain.report.figures import INK, MUTED, draw_svg, short_name
from fasttrain.report.page import Figure
from fasttrain.report.recipe.views import DONE, RecipeView, StageView, readable_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

FILLS = {DONE: "#d9f2e6", "failed": "#fbd5d5", "unfinished": "#fde3c8", "changed": "#fdf3c8"}
OTHERS = "#eef0f4"
WORST = ("failed", "unfinished", "changed")
MAX_ROW = 6  # boxes beside each other; where there are more, those of one stage of the recipe are drawn as one
WIDTH, ROW = 10.0, 0.78  # inches


@dataclass(frozen=True)
class Box:
    """One or several stages that are drawn as one."""

    stages: tuple[StageView, ...]
    row: int

    @property
    def names(self) -> frozenset[str]:
        """Of its stages."""
        return frozenset(stage.name for stage in self.stages)

    @property
    def state(self) -> str:
        """Of all its stages: that of the worst."""
        states = [stage.state for stage in self.stages]
        return next((state for state in (*WORST, *states) if state in states and state != DONE), DONE)

    @property
    def lines(self) -> list[str]:
        """What stands in it."""
        first = self.stages[0]
        count = f" ×{len(self.stages)}" if len(self.stages) > 1 else ""
        alike = [
            (key, label) for key, label in first.axes.items() if all(one.axes[key] == label for one in self.stages)
        ]
        values = ", ".join(f"{key} {label}" if len(alike) == 1 and len(label) < 3 else label for key, label in alike)
        seconds = sum(stage.seconds for stage in self.stages)
        told = readable_time(seconds) if self.state == DONE else self.state
        return [short_name(first.template) + count, values, told]


def graph_figure(view: RecipeView, caption: str = "") -> Figure:
    """The stages as boxes, each below those that it needs; connections that follow from others are left out."""
    boxes = _boxes(view)
    rows = max(box.row for box in boxes) + 1
    places = _places(boxes)

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(rows - 0.45, -0.55)
        for number, box in enumerate(boxes):
            for other in _direct(view, boxes, box):
                _connect(axes, places[other], places[number])
        for box, place in zip(boxes, places, strict=True):
            _draw_box(axes, box, place)

    alt = f"Graph of {len(view.stages)} stages in {rows} steps"
    return Figure(draw_svg(draw, WIDTH, ROW * rows + 0.2), caption, alt)


def _boxes(view: RecipeView) -> list[Box]:
    row_of: dict[str, int] = {}
    rows: dict[int, list[StageView]] = {}
    for stage in view.stages:
        row_of[stage.name] = row = max((row_of[name] + 1 for _, name, _ in stage.inputs), default=0)
        rows.setdefault(row, []).append(stage)
    boxes = []
    for row, stages in sorted(rows.items()):
        groups: dict[str, list[StageView]] = {}
        for stage in stages:
            groups.setdefault(stage.template if len(stages) > MAX_ROW else stage.name, []).append(stage)
        boxes += [Box(tuple(group), row) for group in groups.values()]
    return boxes


def _places(boxes: Sequence[Box]) -> list[tuple[float, float, float]]:
    """Centre and width of each box: beside each other in their row, near to those that they need."""
    result: list[tuple[float, float, float]] = []
    at: dict[str, float] = {}
    for row in range(max(box.row for box in boxes) + 1):
        here = [box for box in boxes if box.row == row]
        wished = {id(box): _mean([at[name] for one in box.stages for _, name, _ in one.inputs]) for box in here}
        ordered = sorted(here, key=lambda box: wished[id(box)])  # stable: otherwise as in the recipe
        share = 1 / len(here)
        centre = {id(box): (place + 0.5) * share for place, box in enumerate(ordered)}
        for box in here:
            at |= dict.fromkeys(box.names, centre[id(box)])
            result.append((centre[id(box)], float(row), min(0.92 * share, 0.24)))
    return result


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def _direct(view: RecipeView, boxes: Sequence[Box], box: Box) -> list[int]:
    """Boxes that a box needs, and not through another one that it needs."""
    needed = {name for stage in box.stages for _, name, _ in stage.inputs} - box.names
    implied = {other for name in needed for other in view.before(view.by_name[name])}
    return [number for number, other in enumerate(boxes) if other.names & (needed - implied)]


def _connect(axes: "Axes", upper: tuple[float, float, float], lower: tuple[float, float, float]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    start, end = (upper[0], upper[1] + 0.36), (lower[0], lower[1] - 0.36)
    middle = (start[1] + end[1]) / 2
    points = [start, (start[0], middle), (end[0], middle), end]
    path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    axes.add_patch(PathPatch(path, facecolor="none", edgecolor="#a9b3c1", linewidth=1.1, zorder=1))


def _draw_box(axes: "Axes", box: Box, place: tuple[float, float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y, width = place
    style = "round,pad=0,rounding_size=0.012"
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.34),
            width,
            0.68,
            style,
            facecolor=FILLS.get(box.state, OTHERS),
            edgecolor="#c4ccd8",
            linewidth=0.9,
            zorder=2,
            mutation_aspect=0.1 * WIDTH / ROW * 10,
        )
    )
    name, values, told = box.lines
    fits = max(8, round(width * 92))  # characters of this size
    axes.text(
        x, y - 0.17, _cut(name, fits), ha="center", va="center", fontsize=8, fontweight="bold", zorder=3, color=INK
    )
    axes.text(x, y + 0.03, _cut(values, fits), ha="center", va="center", fontsize=7, color=INK, zorder=3)
    axes.text(x, y + 0.21, _cut(told, fits), ha="center", va="center", fontsize=7, color=MUTED, zorder=3)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
