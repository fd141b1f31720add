"""Declared rules on pairs of classes: where one is predicted and another comes close, the other may be meant."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fasttrain.base.config import Settings, load_settings, read_config
from fasttrain.base.errors import ScoresError


class ClassRule(Settings):
    """One rule: samples predicted as a class become another where a condition on the two logits holds.

    Attributes:
        predicted: the class that is predicted.
        other: the class that it is compared with.
        ratio: the condition ``ratio * z[other] > z[predicted]``, both logits above 0. The scale of negative logits says
            nothing (a factor above 1 would lower it), so the rule does not hold there.
        margin: the condition ``z[predicted] - z[other] < margin``, whatever the signs. Either this or a ratio.
        becomes: the class that is written; by default `other`.
        why: a remark.
    """

    predicted: str
    other: str
    ratio: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    margin: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    becomes: str | None = None
    why: str = ""

    @model_validator(mode="after")
    def _one_condition(self) -> "ClassRule":
        if (self.ratio is None) == (self.margin is None):
            raise ValueError("a rule has a ratio or a margin, one of the two")
        if self.predicted == self.other or self.predicted == self.becomes:
            raise ValueError(f"a rule leads from {self.predicted!r} to another class")
        return self

    @property
    def target(self) -> str:
        """The class that is written."""
        return self.other if self.becomes is None else self.becomes


class ClassRules(Settings):
    """Rules in the order in which they are applied.

    Attributes:
        rules: at least one.
        look_at: which label is the predicted one: the ``original`` (the class of the highest score, whatever the rules
            before did; of several rules that hold, the last counts), or the ``current`` one (a rule sees what those
            before it wrote).
        source: where the rules are from.
    """

    rules: tuple[ClassRule, ...] = Field(min_length=1)
    look_at: Literal["original", "current"] = "original"
    source: str = ""


def read_rules(path: str | Path) -> ClassRules:
    """Rules of a YAML file, or those of a name that come with the package (``ood_cv``).

    Raises:
        ConfigError: there is neither, or the file holds something else.
    """
    return load_settings(ClassRules, read_config(path, "rules"), f"rules {path}")


class RuleRun:
    """Rules that fit a table, applied block by block.

    Attributes:
        rules: they.
    """

    def __init__(self, rules: ClassRules, classes: list[str], kind: str, where: str) -> None:
        self.rules = rules
        position = {name: column for column, name in enumerate(classes)}
        for rule in rules.rules:
            for name in (rule.predicted, rule.other, rule.target):
                if name not in position:
                    raise ScoresError(f"{where} names the class {name!r}, which the table does not have")
            if rule.ratio is not None and kind != "logits":
                raise ScoresError(f"{where} compares logits by a ratio, but the table holds {kind}; declare a margin")
        self._columns = [tuple(position[n] for n in (rule.predicted, rule.other, rule.target)) for rule in rules.rules]
        self._kind = kind
        self._changed = [0] * len(rules.rules)

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """(n,) int32 labels of scores (n, C): the highest, changed where a rule holds."""
        original = scores.argmax(1).astype(np.int32)
        labels = original.copy()
        author = np.full(len(labels), -1)
        for number, (rule, (predicted, other, target)) in enumerate(zip(self.rules.rules, self._columns, strict=True)):
            seen = original if self.rules.look_at == "original" else labels
            rows = np.flatnonzero(seen == predicted)
            rows = rows[self._holds(rule, scores[rows, predicted], scores[rows, other])]
            labels[rows], author[rows] = target, number
        author[labels == original] = -1
        for number in range(len(self._changed)):
            self._changed[number] += int((author == number).sum())
        return labels

    def _holds(self, rule: ClassRule, predicted: np.ndarray, other: np.ndarray) -> np.ndarray:
        predicted, other = predicted.astype(np.float64), other.astype(np.float64)
        if rule.ratio is not None:
            return (predicted > 0) & (other > 0) & (rule.ratio * other > predicted)
        assert rule.margin is not None  # the settings see to it
        if self._kind == "probs":
            with np.errstate(divide="ignore"):
                predicted, other = np.log(predicted), np.log(other)
        return predicted - other < rule.margin

    def report(self) -> list[dict[str, Any]]:
        """Of each rule in order: predicted, other, becomes, and changed, the samples that have their label from it."""
        return [
            {"predicted": rule.predicted, "other": rule.other, "becomes": rule.target, "changed": changed}
            for rule, changed in zip(self.rules.rules, self._changed, strict=True)
        ]
