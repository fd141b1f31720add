"""What `segment_evaluate` stages measured, and what adaptation, self-training and soups added to it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fasttrain.report.recipe.measured import Gain, labels_of
from fasttrain.report.recipe.views import RecipeView, StageView

MIOU = "mIoU"
# Settings of an evaluation that its figures depend on, and what they are where nothing is said.
VIEWS = {"mode": "whole", "crop": None, "stride": None, "scales": "1", "hflip": False, "size": None}
COMPARED = ("model", "size", "iterations", "epochs", "batch_size", "seed")  # else it is not adaptation alone that adds
STEPS = ("adaptation", "self-training", "soup")


@dataclass(frozen=True)
class MaskMeasure:
    """What a `segment_evaluate` stage said of a model.

    Attributes:
        name: of what was measured, ``adapt`` or ``adapt.teacher``; of one from outside, its path.
        stage, output: that it came from; "" for one from outside.
        by: the `segment_evaluate` stage.
        labels: the data, and which of its samples; figures on different data are not compared.
        how: settings of the evaluation other than the defaults; figures of different ones are not compared.
        samples: images.
        miou, aacc: mean IoU over the classes that are there, and share of right pixels.
        iou: of each class, None of one that is not there.
    """

    name: str
    stage: str
    output: str
    by: str
    labels: str
    how: str
    samples: int
    miou: float
    aacc: float | None
    iou: Mapping[str, float | None]

    @property
    def final(self) -> float:
        """The figure that counts."""
        return self.miou

    @property
    def made_by(self) -> tuple[str, str]:
        """Stage and output."""
        return self.stage, self.output

    def is_like(self, other: "MaskMeasure") -> bool:
        """Whether both were measured on the same data in the same way."""
        return (self.labels, self.how) == (other.labels, other.how)


def mask_measures(view: RecipeView) -> list[MaskMeasure]:
    """All that finished `segment_evaluate` stages measured."""
    found = []
    for stage in view.of_kind("segment_evaluate"):
        result = stage.result
        if not isinstance(result.get("miou"), int | float):
            continue
        made = [(name, output) for key, name, output in stage.inputs if key == "checkpoint"]
        source, output = made[0] if made else ("", "")
        shown = source if output == "checkpoint" else f"{source}.{output}"
        found.append(
            MaskMeasure(
                name=shown if made else next(iter(stage.files.get("checkpoint", ())), "a model"),
                stage=source,
                output=output,
                by=stage.name,
                labels=labels_of(stage),
                how=_how(stage),
                samples=int(result.get("samples", 0)),
                miou=float(result["miou"]),
                aacc=result.get("aacc"),
                iou=dict(zip(result.get("classes", ()), result.get("iou", ()), strict=False)),
            )
        )
    return found


def _how(stage: StageView) -> str:
    settings: Mapping[str, Any] = stage.record.get("settings", {})
    told = {key: settings.get(key, default) for key, default in VIEWS.items()}
    return ", ".join(f"{key} {value}" for key, value in told.items() if str(value) != str(VIEWS[key]))


def mask_gains(view: RecipeView, found: Sequence[MaskMeasure]) -> list[Gain]:
    """What each step added over a model that has seen the labelled data alone, and over what it began with, wherever
    both were measured on the same data in the same way."""
    result: list[Gain] = []
    for one in found:
        step = _step_of(view, one)
        if step is not None:
            alike = [other for other in found if other.made_by != one.made_by and one.is_like(other)]
            result += _of_step(view, step, one, alike)
    return sorted(result, key=lambda gain: STEPS.index(gain.step))


def _step_of(view: RecipeView, one: MaskMeasure) -> str | None:
    stage = view.by_name.get(one.stage)
    if stage is None:
        return None
    if stage.kind == "segment_train":
        return "self-training" if _labellers(view, stage) else None
    return {"segment_adapt": "adaptation", "soup": "soup"}.get(stage.kind)


def _labellers(view: RecipeView, stage: StageView) -> list[StageView]:
    """The stages that predicted the masks that a training learns from."""
    sources = view.sources(stage, "data")
    before = {name for source in sources for name in (source.name, *view.before(source))}
    return [view.by_name[name] for name in sorted(before) if view.by_name[name].kind == "segment_predict"]


def _of_step(view: RecipeView, step: str, one: MaskMeasure, alike: Sequence[MaskMeasure]) -> Iterator[Gain]:
    stage = view.by_name[one.stage]
    begun = _begun_with(view, stage)
    parts = [other for other in alike if other.made_by in begun]
    for other in _of_source_alone(view, one, alike):
        if other not in parts:
            yield _gain(step, one, other, unlike(stage, view.by_name[other.stage]) if step == "adaptation" else "")
    if step == "soup" and len(parts) > 1:
        mean = sum(part.miou for part in parts) / len(parts)
        yield Gain(step, one.name, f"mean of {len(parts)} members", mean, one.miou, figure=MIOU)
        yield _gain(step, one, max(parts, key=lambda part: part.miou), "the best member")
    else:
        for part in parts:
            yield _gain(step, one, part)


def _gain(step: str, one: MaskMeasure, other: MaskMeasure, note: str = "") -> Gain:
    return Gain(step, one.name, other.name, other.miou, one.miou, note, MIOU)


def _begun_with(view: RecipeView, stage: StageView) -> set[tuple[str, str]]:
    """Stage and output of the models that one was made of: members, first weights, what gave the pseudo-labels."""
    if stage.kind == "soup":
        runs = {(name, "checkpoint") for key, name, _ in stage.inputs if key == "run"}
        return runs | {(name, output) for key, name, output in stage.inputs if key == "checkpoints"}
    begun = {(name, output) for key, name, output in stage.inputs if key == "weights"}
    if stage.kind == "segment_train":
        for labeller in _labellers(view, stage):
            begun |= {(name, output) for key, name, output in labeller.inputs if key == "checkpoint"}
    return begun


def _of_source_alone(view: RecipeView, one: MaskMeasure, alike: Sequence[MaskMeasure]) -> list[MaskMeasure]:
    """Measures of models that were trained on what all began with, the labelled data, and on nothing else."""
    stage = view.by_name[one.stage]
    origins = [stage, *(view.by_name[name] for name in view.before(stage))]
    learned = {
        _data_of(origin)
        for origin in origins
        if origin.kind == "segment_adapt" or (origin.kind == "segment_train" and not _labellers(view, origin))
    }
    by_stage: dict[str, list[MaskMeasure]] = {}
    for other in alike:
        rival = view.by_name.get(other.stage)
        if rival is None or not _is_of_source_alone(view, rival) or _data_of(rival) not in learned:
            continue
        if all(stage.axes.get(axis, label) == label for axis, label in rival.axes.items()):
            by_stage.setdefault(rival.name, []).append(other)
    return [
        min(measured, key=lambda other: (other.output != one.output, other.output != "checkpoint"))
        for measured in by_stage.values()
    ]


def _is_of_source_alone(view: RecipeView, stage: StageView) -> bool:
    others = {view.by_name[name].kind for name in view.before(stage)}
    return stage.kind == "segment_train" and not others & {"segment_adapt", "segment_predict"}


def _data_of(stage: StageView) -> frozenset[str]:
    made = {f"{name}.{output}" for key, name, output in stage.inputs if key == "data"}
    return frozenset({*made, *stage.files.get("data", ())})


def unlike(stage: StageView, other: StageView) -> str:
    """Settings in which two trainings differ, so that it is not the step alone that made the difference."""
    one, two = (entry.record.get("settings", {}) for entry in (stage, other))
    names = [name for name in COMPARED if one.get(name) != two.get(name)]
    return f"differs in {', '.join(names)} as well" if names else ""
