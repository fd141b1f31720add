"""The section with pictures that stages left: what an adaptation has learned from, and masks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fasttrain.report.page import Block, Figure, Section, Text
from fasttrain.report.pictures import picture_of_file
from fasttrain.report.recipe.views import RecipeView, StageView
from fasttrain.report.tables import percent

MAX_STAGES = 8  # of a kind; of more, those of the last round
WIDTH, HEIGHT = 1600, 3200  # pixels at most
GRID = "grid.png"  # of `masks show`: all samples, and the classes' colours
COLUMNS = (
    "from left to right source, its labels, target, pseudo-labels, the two mixed and augmented, its labels, and what "
    "its pixels count (white: all)"
)


def pictures_section(view: RecipeView) -> Section | None:
    """The first and the last picture of each adaptation, and the samples of `masks_show` and `objects_masks` stages."""
    blocks: list[Block] = []
    for stage in _some(view, "segment_adapt"):
        blocks += _of_adaptation(stage)
    for stage in _some(view, "masks_show"):
        blocks += _of_masks(stage)
    for stage in _some(view, "objects_masks"):
        blocks += _of_objects(stage)
    return Section("Pictures", blocks) if blocks else None


def _some(view: RecipeView, kind: str) -> Sequence[StageView]:
    stages = view.of_kind(kind)
    return stages if len(stages) <= MAX_STAGES else view.of_last_round(stages)[-MAX_STAGES:]


def _of_adaptation(stage: StageView) -> Iterator[Block]:
    if "run" in stage.outputs:
        for path in _first_and_last(sorted((stage.outputs["run"] / "pictures").glob("step_*.png"))):
            step = int(path.stem.removeprefix("step_"))
            yield _figure(stage, path, f"{stage.name}, step {step + 1:,}: {COLUMNS}.")


def _of_masks(stage: StageView) -> Iterator[Block]:
    folder = stage.outputs["pictures"]
    if (folder / GRID).exists():
        yield _figure(stage, folder / GRID, f"{stage.name}: samples, each beside itself under its masks.")
        return
    for path in _first_and_last(sorted(folder.glob("*.png"))):
        yield _figure(stage, path, f"{stage.name}: {path.stem}.")


def _of_objects(stage: StageView) -> Iterator[Block]:
    if "pictures" in stage.outputs:
        caption = f"{stage.name}: samples, each beside itself under the mask of its objects{_shares(stage)}."
        yield _figure(stage, stage.outputs["pictures"], caption)


def _shares(stage: StageView) -> str:
    """What the stage said of all its masks."""
    made, empty, share = (stage.result.get(key) for key in ("made", "empty", "object_share"))
    if not made or share is None:
        return ""
    return f"; of {made:,} masks {empty:,} are empty, and objects take {percent(share)} of an image on average"


def _first_and_last(paths: Sequence[Path]) -> list[Path]:
    return list(dict.fromkeys([*paths[:1], *paths[-1:]]))


def _figure(stage: StageView, path: Path, caption: str) -> Block:
    try:
        return Figure(picture_of_file(path, WIDTH, HEIGHT), caption, f"{path.name} of {stage.name}")
    except OSError as error:
        return Text(f"{caption} It cannot be shown: {error}", muted=True)
