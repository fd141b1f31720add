"""What `evaluate` stages measured, and what each step added to it. No label is looked at here, only their figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fasttrain.report.recipe.views import RecipeView, StageView

TOP1 = "top-1"


@dataclass(frozen=True)
class Measure:
    """What an `evaluate` stage said of a table or a model.

    Attributes:
        stage: that was measured.
        by: the `evaluate` stage.
        labels: where its labels are from; figures by different labels are not compared.
        samples: that have a label.
        top1: of the highest scores.
        top1_assigned: of re-distributed labels, None without any.
        macro_f1: of the labels that count.
    """

    stage: str
    by: str
    labels: str
    samples: int
    top1: float
    top1_assigned: float | None
    macro_f1: float | None

    @property
    def name(self) -> str:
        """Of what was measured."""
        return self.stage

    @property
    def final(self) -> float:
        """Top-1 of the labels that count: re-distributed ones where there are any."""
        return self.top1 if self.top1_assigned is None else self.top1_assigned


@dataclass(frozen=True)
class Gain:
    """What a step added.

    Attributes:
        step: "ensemble", "re-distribution", "logit adjustment", "soup" or "pseudo-labels"; of trainings see
            `measured_trainings`; of masks "adaptation", "self-training" or "soup".
        stage: behind it.
        against: what it is compared with.
        before, after: of the figure.
        note: under which knowledge, and the like.
        figure: "top-1" or "mIoU".
    """

    step: str
    stage: str
    against: str
    before: float
    after: float
    note: str = ""
    figure: str = TOP1

    @property
    def gain(self) -> float:
        """The difference."""
        return self.after - self.before


def measures(view: RecipeView) -> list[Measure]:
    """All that finished `evaluate` stages measured."""
    found = []
    for stage in view.of_kind("evaluate", "evaluate_model"):
        measured = view.sources(stage, "table", "checkpoint")
        result = stage.result
        if not measured or not isinstance(result.get("top1"), int | float):
            continue
        found.append(
            Measure(
                stage=measured[0].name,
                by=stage.name,
                labels=labels_of(stage),
                samples=int(result.get("samples", 0)),
                top1=float(result["top1"]),
                top1_assigned=result.get("top1_assigned"),
                macro_f1=result.get("macro_f1_assigned", result.get("macro_f1")),
            )
        )
    return found


def labels_of(stage: StageView) -> str:
    """Name of what the labels came from, and of the ids that a part of it was chosen by."""
    ids = "".join(f", by {name}" for name in _given(stage, "ids"))
    return next(iter([*_given(stage, "labels" if stage.kind == "evaluate" else "data"), "the table's own"])) + ids


def _given(stage: StageView, key: str) -> list[str]:
    """Names of what an input was given."""
    return [*(f"{name}.{output}" for entry, name, output in stage.inputs if entry == key), *stage.files.get(key, ())]


def gains(view: RecipeView, found: Sequence[Measure]) -> list[Gain]:
    """What ensembles, re-distribution, logit adjustment, soups and pseudo-labels added, wherever both sides of the
    comparison were measured by the same labels."""
    by_stage: dict[tuple[str, str], Measure] = {(one.stage, one.labels): one for one in found}
    result: list[Gain] = []
    for one in found:
        stage = view.by_name[one.stage]

        def of(other: StageView, labels: str = one.labels) -> Measure | None:
            return by_stage.get((other.name, labels))

        result += _of_ensemble(view, stage, one, of)
        result += _of_redistribution(stage, one)
        result += _of_adjustment(view, stage, one, of)
        result += _of_soup(view, stage, one, found)
        result += _of_round(view, stage, one, of)
    order = {step: place for place, step in enumerate(STEPS)}
    return sorted(result, key=lambda gain: order[gain.step])


STEPS = ("ensemble", "soup", "logit adjustment", "re-distribution", "pseudo-labels", "another round")


def _of_ensemble(view: RecipeView, stage: StageView, one: Measure, of: Any) -> Iterator[Gain]:
    if stage.kind != "ensemble":
        return
    members = [measured for source in view.sources(stage, "tables") if (measured := of(source)) is not None]
    if len(members) < 2:
        return
    mean = sum(member.top1 for member in members) / len(members)
    best = max(members, key=lambda member: member.top1)
    yield Gain("ensemble", stage.name, f"mean of {len(members)} members", mean, one.top1)
    yield Gain("ensemble", stage.name, best.stage, best.top1, one.top1, "the best member")


def _of_redistribution(stage: StageView, one: Measure) -> Iterator[Gain]:
    if stage.kind == "redistribute" and one.top1_assigned is not None:
        yield Gain("re-distribution", stage.name, "its argmax", one.top1, one.top1_assigned, prior_of(stage))


def _of_adjustment(view: RecipeView, stage: StageView, one: Measure, of: Any) -> Iterator[Gain]:
    if stage.kind == "adjust":
        for source in view.sources(stage, "table"):
            before = of(source)
            if before is not None:
                yield Gain("logit adjustment", stage.name, before.stage, before.final, one.final)


def _of_soup(view: RecipeView, stage: StageView, one: Measure, found: Sequence[Measure]) -> Iterator[Gain]:
    """Of a model that is a soup, or of its scores: against the same of the run that its weights are from."""
    soups = [stage] if stage.kind == "soup" else view.sources(stage, "checkpoint") if stage.kind == "predict" else []
    ingredients = {
        run.name for soup in soups if soup.kind == "soup" for run in view.sources(soup, "run", "checkpoints")
    }
    for other in found:
        rival = view.by_name[other.stage]
        made_by = {rival.name} if rival.kind == "train" else {run.name for run in view.sources(rival, "checkpoint")}
        alike = rival.kind == stage.kind or (rival.kind, stage.kind) == ("train", "soup")
        if alike and other.labels == one.labels and made_by & ingredients:
            yield Gain("soup", stage.name, other.stage, other.top1, one.top1)


def _of_round(view: RecipeView, stage: StageView, one: Measure, of: Any) -> Iterator[Gain]:
    earlier = view.of_round_before(stage)
    before = None if earlier is None else of(earlier)
    if earlier is None or before is None:
        return
    new = view.before(stage) - view.before(earlier)
    learned = any(view.by_name[name].kind == "pseudo" for name in new)
    yield Gain("pseudo-labels" if learned else "another round", stage.name, earlier.name, before.final, one.final)


def prior_of(stage: StageView) -> str:
    """Under which class counts a re-distribution was done, and whether these were known."""
    settings: Mapping[str, Any] = stage.record.get("settings", {})
    if settings.get("method") == "greedy-k":
        return f"greedy-k, at least {settings.get('k')} of each class: known"
    prior = str(settings.get("prior", "uniform"))
    if prior == "estimate":
        return "prior estimated from the scores: not known"
    if prior == "train":
        return "prior of the training data: not known"
    return "uniform prior: known" if prior == "uniform" else f"prior of {prior}: known"
