"""Sections about accuracy: of every round and model, what each step added, and the worst classes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fasttrain.base.runs import RunFolder
from fasttrain.report.figures import colours, draw_svg, short_name, training_curves
from fasttrain.report.page import Block, Figure, Section, Table, Text
from fasttrain.report.recipe.measured import Gain, Measure
from fasttrain.report.recipe.views import RecipeView, StageView, readable_time, spaced
from fasttrain.report.tables import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MAX_CURVES = 8  # runs; of more, those of the last round
WORST = 12  # classes that are shown
NOTHING = "No `evaluate` stage is done, so there are no accuracies to show."


def accuracy_section(view: RecipeView, found: Sequence[Measure], gains: Sequence[Gain]) -> Section:
    """What was measured, and what came of each step."""
    if not found:
        return Section("Accuracy", [Text(NOTHING)])
    blocks: list[Block] = []
    series = _by_round(view, found)
    if view.rounds is not None and any(len(points) > 1 for points in series.values()):
        blocks.append(_round_figure(view.rounds, series))
    blocks.append(_accuracy_table(found))
    blocks.append(_gain_table(gains) if gains else Text("No two of these can be compared as before and after a step."))
    return Section("Accuracy", blocks)


def _by_round(view: RecipeView, found: Sequence[Measure]) -> dict[str, dict[str, float]]:
    """Top-1 of the labels that count, by round, of each table or model that is there for several."""
    series: dict[str, dict[str, float]] = {}
    for one in found:
        several_sets = len({other.labels for other in found if other.stage == one.stage}) > 1
        stage = view.by_name[one.stage]
        label = view.round_of(stage)
        if view.rounds is None or label is None:
            continue
        others = [value for key, value in stage.axes.items() if key != view.rounds[0]]
        name = " ".join([stage.template, *others, *([one.labels] if several_sets else [])])
        series.setdefault(name, {})[label] = one.final
    return series


def _round_figure(rounds: tuple[str, list[str]], series: Mapping[str, Mapping[str, float]]) -> Figure:
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
        axes.set_ylabel("top-1")
        canvas.legend(loc="outside right upper", fontsize=8)

    caption = "Top-1 of the labels that count (re-distributed ones where there are any), by `evaluate` stages."
    return Figure(draw_svg(draw, 10, 3.6), caption, f"Top-1 by {axis}: {', '.join(series)}")


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
    highest: dict[str, float] = {}
    for one in found:
        highest[one.labels] = max(one.final, highest.get(one.labels, 0.0))
    best = [place for place, one in enumerate(found) if one.final == highest[one.labels]]
    columns = ["top-1 of", "true labels from", "samples", "argmax", "re-distributed", "macro F1"]
    caption = (
        "What the recipe's `evaluate` stages measured. True labels of target sets are read by those stages alone; "
        "the figures are shown here, and nothing was chosen by them. The best row by each source of labels is stressed."
    )
    return Table(columns, rows, caption, best, left=2)


def _gain_table(gains: Sequence[Gain]) -> Table:
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
    ]
    caption = (
        "What each step added, in percentage points of top-1, wherever both sides were measured by the same labels."
    )
    return Table(["step", "of", "against", "before", "after", "added"], rows, caption, left=3)


def points(gain: float) -> str:
    """``0.0123`` as ``+1.2``."""
    return f"{100 * gain:+.1f}"


def worst_classes_section(view: RecipeView, found: Sequence[Measure]) -> Section:
    """The classes that the last labels are worst in."""
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


def training_section(view: RecipeView) -> Section | None:
    """The runs: time, speed, validation; and their curves."""
    stages = view.of_kind("train", "soup")
    if not stages:
        return None
    rows = [_training_row(stage) for stage in stages]
    columns = ["stage", "time", "epochs", "images/s", "data wait", "validation top-1"]
    caption = (
        "Validation is on samples that the recipe sets aside from its labelled data; choices may look at it, and its "
        "accuracy says little about a target set of another kind."
    )
    blocks: list[Block] = [Table(columns, rows, caption)]
    runs = {stage.name: RunFolder(stage.outputs["run"]) for stage in stages if "run" in stage.outputs}
    if len(runs) > MAX_CURVES:
        last = {stage.name for stage in view.of_last_round(stages)}
        runs = {name: run for name, run in runs.items() if name in last}
    records = {name: run.read_metrics() for name, run in list(runs.items())[-MAX_CURVES:]}
    if any(records.values()):
        shown = "Curves of the runs" + (" of the last round." if len(runs) < len(view.of_kind("train")) else ".")
        blocks.insert(0, training_curves({_shortened(name): lines for name, lines in records.items()}, shown))
    return Section("Training", blocks)


def _shortened(name: str) -> str:
    """``train[model=a,round=1]`` as ``a, 1``, which legends have room for."""
    axes = name.partition("[")[2].rstrip("]")
    return ", ".join(pair.partition("=")[2] for pair in axes.split(",")) if axes else name


def _training_row(stage: StageView) -> list[str]:
    result = stage.result
    rate = result.get("images_per_s")
    return [
        spaced(stage.name),
        readable_time(stage.seconds),
        str(result.get("epochs", "–")),
        "–" if rate is None else f"{rate:,.0f}",
        percent(result.get("data_wait_fraction")),
        percent(result.get("top1")),
    ]
