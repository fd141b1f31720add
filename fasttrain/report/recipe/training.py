"""The section about training: time, speed, validation, curves, and where these ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from fasttrain.base.runs import RunFolder
from fasttrain.report.figures import training_curves
from fasttrain.report.page import Block, Fold, Section, Table
from fasttrain.report.recipe.views import RecipeView, StageView, brief_name, readable_time, spaced
from fasttrain.report.tables import percent

TRAININGS = ("pretrain", "train", "objects_train", "segment_train", "segment_adapt")  # what leaves a run
MAX_CURVES = 8  # runs; of more, those of the last round
VALIDATED = {"top1": "top-1", "miou": "mIoU"}  # of a stage's result
NOT_LAST = ("epoch", "images_per_s", "data_wait_fraction")  # counters, and what stands in the other table


def training_section(view: RecipeView) -> Section | None:
    """The runs: time, speed, validation; their curves, and the last figures of these."""
    stages = view.of_kind(*TRAININGS, "soup")
    if not stages:
        return None
    blocks: list[Block] = [_stage_table(stages)]
    runs = {stage.name: RunFolder(stage.outputs["run"]) for stage in stages if "run" in stage.outputs}
    records = {name: lines for name, run in runs.items() if (lines := run.read_metrics())}
    if records:
        drawn = list(records)
        if len(drawn) > MAX_CURVES:
            last = {stage.name for stage in view.of_last_round(stages)}
            drawn = [name for name in drawn if name in last]
        shown = "Curves of the runs" + (" of the last round." if len(drawn) < len(records) else ".")
        drawn = drawn[-MAX_CURVES:]
        names = _shortened([view.by_name[name] for name in drawn])
        lines_of = {name: records[full] for name, full in zip(names, drawn, strict=True)}
        blocks = [training_curves(lines_of, shown), *blocks, *_last_table(records)]
    return Section("Training", blocks)


def _stage_table(stages: Sequence[StageView]) -> Table:
    told = {
        key: title for key, title in VALIDATED.items() if any(stage.result.get(key) is not None for stage in stages)
    }
    rows = [_stage_row(stage, tuple(told)) for stage in stages]
    columns = ["stage", "time", "epochs", "images/s", "data wait", *(f"validation {title}" for title in told.values())]
    notes = []
    if told:
        notes.append(
            "Validation is on samples that the recipe sets aside from its labelled data; choices may look at it, and "
            "its accuracy says little about a target set of another kind."
        )
    if any("iterations" in stage.record.get("settings", {}) for stage in stages):
        notes.append("Of a run whose length is given in steps, an epoch is one interval.")
    return Table(columns, rows, " ".join(notes))


def _stage_row(stage: StageView, validated: Sequence[str]) -> list[str]:
    result = stage.result
    rate = result.get("images_per_s")
    return [
        spaced(stage.name),
        readable_time(stage.seconds),
        str(result.get("epochs", "–")),
        "–" if rate is None else f"{rate:,.0f}",
        percent(result.get("data_wait_fraction")),
        *(percent(result.get(key)) for key in validated),
    ]


def _last_table(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Block]:
    """The last line of each run's figures: whatever single numbers it recorded."""
    last = {
        name: {key: value for key, value in lines[-1].items() if _is_told(key, value)}
        for name, lines in records.items()
    }
    keys = list(dict.fromkeys(key for figures in last.values() for key in figures))
    rows = [
        [spaced(name), *("–" if key not in figures else f"{figures[key]:.4g}" for key in keys)]
        for name, figures in last.items()
    ]
    columns = ["stage", *(key.replace("_", " ") for key in keys)]
    table = Table(columns, rows, "Where the curves ended: what each run recorded last.")
    return [table] if len(rows) <= MAX_CURVES else [Fold(f"Where {len(rows)} curves ended", [table])]


def _is_told(key: str, value: object) -> bool:
    return key not in NOT_LAST and isinstance(value, int | float) and not isinstance(value, bool)


def _shortened(stages: Sequence[StageView]) -> list[str]:
    """``train[model=a,round=1]`` as ``a, 1``, which legends have room for; with ``train`` where there are others."""
    alone = len({stage.template for stage in stages}) == 1
    names = [brief_name(stage.name) for stage in stages]
    return [
        name.removeprefix(f"{stage.template} ") if alone else name for stage, name in zip(stages, names, strict=True)
    ]
