"""Sections about accuracy: of every round and model, what each step added, and each class's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from fasttrain.report.figures import colours, draw_svg, short_name
from fasttrain.report.page import Block, Figure, Fold, Section, Table, Text
from fasttrain.report.recipe.measured import TOP1, Gain, Measure
from fasttrain.report.recipe.measured_masks import MIOU, MaskMeasure
from fasttrain.report.recipe.views import RecipeView, brief_name, spaced
from fasttrain.report.tables import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

WORST = 12  # classes that are shown
MAX_CLASSES = 30  # whose IoU is shown at once; more have to be asked for
NOTHING = "No `evaluate` stage is done, so there are no accuracies to show."
INCOMPARABLE = "No two of these can be compared as before and after a step."


def accuracy_section(
    view: RecipeView, found: Sequence[Measure], masks: Sequence[MaskMeasure], gains: Sequence[Gain]
) -> Section:
    """What was measured, and what came of each step: of classifiers, of segmentation, or of both."""
    blocks: list[Block] = []
    if found:
        counted = "Top-1 of the labels that count (re-distributed ones where there are any), by `evaluate` stages."
        blocks += _round_figures(view, TOP1, found, counted)
        blocks += [_accuracy_table(found), _gain_block(TOP1, gains)]
    if masks:
        blocks += _round_figures(view, MIOU, masks, "mIoU, by `segment_evaluate` stages.")
        blocks += [_mask_table(masks), _gain_block(MIOU, gains), *_iou_blocks(masks)]
    return Section("Accuracy", blocks or [Text(NOTHING)])


def _round_figures(
    view: RecipeView, figure: str, found: Sequence[Measure | MaskMeasure], caption: str
) -> Iterator[Block]:
    series = _by_round(view, found)
    if view.rounds is not None and any(len(points) > 1 for points in series.values()):
        yield _round_figure(view.rounds, series, figure, caption)


def _by_round(view: RecipeView, found: Sequence[Measure | MaskMeasure]) -> dict[str, dict[str, float]]:
    """The figure that counts, by round, of each table or model that is there for several."""
    series: dict[str, dict[str, float]] = {}
    for one in found:
        several_sets = len({other.labels for other in found if other.name == one.name}) > 1
        stage = view.by_name.get(one.stage)
        label = None if stage is None else view.round_of(stage)
        if view.rounds is None or stage is None or label is None:
            continue
        others = [value for key, value in stage.axes.items() if key != view.rounds[0]]
        output = one.name.removeprefix(stage.name)
        name = " ".join([stage.template + output, *others, *([one.labels] if several_sets else [])])
        series.setdefault(name, {})[label] = one.final
    return series


def _round_figure(
    rounds: tuple[str, list[str]], series: Mapping[str, Mapping[str, float]], figure: str, caption: str
) -> Figure:
    axis, labels = rounds

    def draw(canvas: "Canvas") -> None:
        axes = canvas.subplots()
        for number, (colour, (name, points)) in enumerate(zip(colours(len(series)), series.items(), strict=True)):
            places = [labels.index(label) for label in points]
            dash = ("-", "--", ":")[number // 8 % 3]  # where colours come again
            axes.plot(
                places, list(points.values()), dash, color=colour, marker="o", markersize=4, label=short_name(name)
            )
        axes.set_xticks(range(len(labels)), [short_name(label) for label in labels])
        axes.set_xlabel(axis)
        axes.set_ylabel(figure)
        canvas.legend(loc="outside right upper", fontsize=8)

    return Figure(draw_svg(draw, 10, 3.6), caption, f"{figure} by {axis}: {', '.join(series)}")


def _accuracy_table(found: Sequence[Measure]) -> Table:
    rows = [
        [
            spaced(one.stage),
            spaced(one.labels),
            f"{one.samples:,}",
            percent(one.top1),
            percent(one.top1_assigned),
            percent(one.macro_f1),
        ]
        for one in found
    ]
    columns = ["top-1 of", "true labels from", "samples", "argmax", "re-distributed", "macro F1"]
    caption = (
        "What the recipe's `evaluate` stages measured. True labels of target sets are read by those stages alone; "
        "the figures are shown here, and nothing was chosen by them. The best row by each source of labels is stressed."
    )
    return Table(columns, rows, caption, _best(found), left=2)


def _best(found: Sequence[Measure | MaskMeasure]) -> list[int]:
    """The rows that are best by their labels."""
    highest: dict[str, float] = {}
    for one in found:
        highest[one.labels] = max(one.final, highest.get(one.labels, 0.0))
    return [place for place, one in enumerate(found) if one.final == highest[one.labels]]


def _mask_table(masks: Sequence[MaskMeasure]) -> Table:
    rows = [
        [
            spaced(one.name),
            spaced(one.labels),
            one.how or "whole images",
            f"{one.samples:,}",
            percent(one.miou),
            percent(one.aacc),
        ]
        for one in masks
    ]
    columns = ["mIoU of", "measured on", "how", "images", "mIoU", "aAcc"]
    caption = (
        "What `segment_evaluate` stages measured: the mean over classes of the intersection over union, and the share "
        "of all pixels that are right. Masks of target sets are read by those stages alone; the figures are shown "
        "here, and nothing was chosen by them. The best row on each data set is stressed."
    )
    return Table(columns, rows, caption, _best(masks), left=3)


def _iou_blocks(masks: Sequence[MaskMeasure]) -> list[Block]:
    """IoU of each class, a column a model; a table for each data set."""
    groups: dict[tuple[str, tuple[str, ...]], list[MaskMeasure]] = {}
    for one in masks:
        if one.iou:
            groups.setdefault((one.labels, tuple(one.iou)), []).append(one)
    blocks: list[Block] = []
    for (labels, classes), group in groups.items():
        names = [brief_name(one.name) + (f" ({one.how})" if one.how else "") for one in group]
        rows = [[name, *(percent(one.iou[name]) for one in group)] for name in classes]
        rows.append(["mean", *(percent(one.miou) for one in group)])
        caption = f"Intersection over union of each class, on {labels}; classes that are not there have none."
        table = Table(["IoU", *names], rows, caption, [len(classes)])
        blocks.append(table if len(classes) <= MAX_CLASSES else Fold(f"IoU of {len(classes)} classes", [table]))
    return blocks


def _gain_block(figure: str, gains: Sequence[Gain]) -> Block:
    rows = [
        [
            one.step + (f" ({one.note})" if one.note else ""),
            spaced(one.stage),
            spaced(one.against),
            percent(one.before),
            percent(one.after),
            points(one.gain),
        ]
        for one in gains
        if one.figure == figure
    ]
    if not rows:
        return Text(INCOMPARABLE)
    caption = (
        f"What each step added, in percentage points of {figure}, wherever both sides were measured by the same labels."
    )
    return Table(["step", "of", "against", "before", "after", "added"], rows, caption, left=3)


def points(gain: float) -> str:
    """``0.0123`` as ``+1.2``; what rounds to nothing has no sign."""
    shown = f"{100 * gain:+.1f}"
    return "0.0" if shown in {"+0.0", "-0.0"} else shown


def worst_classes_section(view: RecipeView, found: Sequence[Measure]) -> Section | None:
    """The classes that the last labels are worst in; None where nothing was classified."""
    if not found:
        return None
    told = [one for one in found if view.by_name[one.by].result.get("per_class")]
    last = view.of_last_round([view.by_name[one.by] for one in told])
    if not last:
        note = "No `evaluate` stage tells of each class; `per_class: true` makes it."
        return Section("Worst classes", [Text(note)])
    best = max((one for one in told if view.by_name[one.by] in last), key=lambda one: one.final)
    classes = [entry for entry in view.by_name[best.by].result["per_class"] if entry.get("accuracy") is not None]
    worst = sorted(classes, key=lambda entry: entry["accuracy"])[:WORST]
    rows = [
        [
            str(entry["class"]),
            f"{entry['samples']:,}",
            f"{entry['predicted']:,}",
            percent(entry["accuracy"]),
            percent(entry["f1"]),
        ]
        for entry in worst
    ]
    caption = f"Of {len(classes)} classes, in {best.stage}, as {best.by} measured it."
    return Section("Worst classes", [Table(["class", "samples", "labelled so", "accuracy", "F1"], rows, caption)])
