"""What a training added to the model that it went on with, or to the classifier that its masks of objects came from."""

from collections.abc import Mapping, Sequence
from typing import Any

from fasttrain.report.recipe.measured import Gain, Measure
from fasttrain.report.recipe.measured_masks import unlike
from fasttrain.report.recipe.views import RecipeView, StageView

MIXING, CO_TEACHER, FURTHER = "mixing by masks of objects", "co-teacher", "further training"
STEPS = (MIXING, CO_TEACHER, FURTHER)
Model = tuple[str, str]  # a training and its output


def training_gains(view: RecipeView, found: Sequence[Measure]) -> list[Gain]:
    """What trainings added, by the scores of their models, wherever those of both were measured by the same labels and
    made in the same way."""
    models = {one.by: model for one in found if (model := _model_of(view, view.by_name[one.stage])) is not None}
    result: list[Gain] = []
    for one in found:
        if one.by not in models:
            continue
        name, output = models[one.by]
        step, origin, note = _step_of(view, view.by_name[name], output)
        for other in found:
            if models.get(other.by) in origin and _is_like(view, one, other):
                result.append(Gain(step, one.stage, other.stage, other.top1, one.top1, note))
    return sorted(result, key=lambda gain: STEPS.index(gain.step))


def _model_of(view: RecipeView, stage: StageView) -> Model | None:
    """The training, and which of its models, that gave a table of scores."""
    if stage.kind != "predict":
        return None
    made = ((name, output) for key, name, output in stage.inputs if key == "checkpoint")
    return next((model for model in made if view.by_name[model[0]].kind == "train"), None)


def _is_like(view: RecipeView, one: Measure, other: Measure) -> bool:
    """Whether both are scores of the same samples, made in the same way."""
    ways = [_options(view.by_name[measure.stage]) for measure in (one, other)]
    return one.labels == other.labels and ways[0] == ways[1]


def _options(stage: StageView) -> dict[str, Any]:
    """Its settings but for the model."""
    return {key: value for key, value in stage.record.get("settings", {}).items() if key != "checkpoint"}


def _step_of(view: RecipeView, stage: StageView, output: str) -> tuple[str, list[Model], str]:
    """The step that a training is, the models that one of its models is compared with, and a note. A training that goes
    on with itself of an earlier round is another matter."""
    settings: Mapping[str, Any] = stage.record.get("settings", {})
    begun = _first_weights(view, stage)
    if begun:
        others = [model for model in begun if view.by_name[model[0]].template != stage.template]
        if not _value(settings, "co_teacher", "weight"):
            return FURTHER, others, ""
        kept = _value(settings, "co_teacher", "keep") or "student"
        return CO_TEACHER, others, output if output in ("student", "teacher") else kept
    if not _value(settings, "augment", "spatial", "prob"):
        return MIXING, [], ""
    mappers = [view.by_name[name] for name in sorted(view.before(stage)) if view.by_name[name].kind == "objects_train"]
    classifiers = [model for mapper in mappers for model in _first_weights(view, mapper)]
    return MIXING, classifiers, "; ".join(filter(None, (unlike(stage, view.by_name[name]) for name, _ in classifiers)))


def _first_weights(view: RecipeView, stage: StageView) -> list[Model]:
    """The training that the first weights of one are of; none where they are of something else."""
    made = [(name, output) for key, name, output in stage.inputs if key == "weights"]
    return [model for model in made if view.by_name[model[0]].kind == "train"]


def _value(settings: Any, *keys: str) -> Any:
    """What stands under nested keys; None if nothing does."""
    for key in keys:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings
