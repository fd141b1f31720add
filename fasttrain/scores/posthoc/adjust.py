"""The stage after inference: temperature, logit adjustment by the training prior, and rules on pairs of classes.

They are applied in this order, each to the result of the one before.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fasttrain.base.config import Settings
from fasttrain.base.errors import ScoresError
from fasttrain.scores.ensembles.validation_tables import Validation
from fasttrain.scores.files.opened import OpenedTable, writing
from fasttrain.scores.measures.figures import Figures, likelihoods
from fasttrain.scores.posthoc.class_rules import RuleRun, read_rules
from fasttrain.scores.redistribution.priors import read_prior, shares
from fasttrain.scores.table import log_normalise


class AdjustSettings(Settings):
    """What is done to a table.

    Attributes:
        temperature: that logits, or log-probabilities, are divided by.
        fit_temperature: labelled table of the same model on other samples, on which it is fitted instead.
        train_counts: CSV file of class and count in the training data, for logit adjustment; or what `counts` of
            `adjust_file` were counted in.
        tau: its strength: ``z - tau * log(share)`` (Menon et al., ICLR 2021; post hoc).
        rules: YAML file of rules on pairs of classes, or the name of one that comes with the package.
        dtype: of the scores that are written.
    """

    temperature: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    fit_temperature: Path | None = None
    train_counts: Path | None = None
    tau: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    rules: str | None = None
    dtype: Literal["float32", "float16"] = "float32"

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "AdjustSettings":
        if self.temperature is not None and self.fit_temperature is not None:
            raise ValueError("the temperature is given or fitted, not both")
        if "tau" in self.model_fields_set and self.train_counts is None:
            raise ValueError("tau belongs to train_counts")
        if not {"temperature", "fit_temperature", "train_counts", "rules"} & self.model_fields_set:
            raise ValueError("there is nothing to do; give a temperature, training counts or rules")
        return self


def adjust_file(
    path: str | Path, out: str | Path, settings: AdjustSettings, counts: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Write an adjusted table; it keeps the kind of its scores. Neither table is ever whole in memory.

    What rules change are not scores but labels: the table gets the columns ``assigned`` and ``assigned_p`` (the
    softmax probability of that label), as of a re-distribution.

    Args:
        counts: by class name, in place of what `settings.train_counts` holds where that is no CSV file.

    Returns:
        {samples}; temperature, tau and rules (see `RuleRun.report`) of what was done; changed, the labels that differ
        from the highest score before; and where labels are known top1_before, top1_after, and nll (nats) and ece (15
        bins of equal width) of the scores that were written.

    Raises:
        ConfigError, ScoresError: see the parts.
    """
    table = OpenedTable.open(path)
    if table.has_assigned:
        raise ScoresError(
            f"{table.name} holds labels that were assigned to its scores as they are; adjust before, then redistribute"
        )
    stage = _Stage(table, settings, counts)
    figures, changed, right = Figures(), 0, np.zeros(2, int)
    assigned, assigned_p = np.empty(len(table), np.int32), np.empty(len(table), np.float32)
    head: dict[str, Any] = {"ids": table.ids, "labels": table.labels, "classes": table.classes}
    meta = {**table.meta, "adjustment": stage.provenance()}
    rules = stage.rules is not None
    with writing(out, **head, kind=table.kind, meta=meta, dtype=settings.dtype, assigned=rules) as writer:
        for block, scores in stage.blocks():
            writer.put(block, scores)
            figures.add(scores, table.kind, table.labels[block])
            labels = scores.argmax(1) if stage.rules is None else stage.rules.apply(scores)
            if rules:
                assigned[block] = labels
                assigned_p[block] = np.exp(likelihoods(scores, table.kind, labels)[2])
            before = table.scores[block].argmax(1)
            changed += int((labels != before).sum())
            known = table.labels[block] >= 0
            right += [int((given == table.labels[block])[known].sum()) for given in (before, labels)]
        if rules:
            writer.put_assigned(assigned, assigned_p)
    report: dict[str, Any] = {"samples": len(table), **stage.facts, "changed": changed}
    if stage.rules is not None:
        report["rules"] = stage.rules.report()
    if known_samples := int((table.labels >= 0).sum()):
        measured = figures.result()
        report |= {"top1_before": right[0] / known_samples, "top1_after": right[1] / known_samples}
        report |= {"nll": measured["nll"], "ece": measured["ece"]}
    return report


class _Stage:
    """What is done to each row block of a table.

    Attributes:
        rules: to be applied to the adjusted scores, or None.
        facts: temperature and tau, for the report.
    """

    def __init__(self, table: OpenedTable, settings: AdjustSettings, counts: Mapping[str, float] | None) -> None:
        self._table, self._settings = table, settings
        self.facts: dict[str, Any] = {}
        self.rules = None
        if settings.rules is not None:
            self.rules = RuleRun(read_rules(settings.rules), table.classes, table.kind, f"rules {settings.rules}")
        self._shift = None if settings.train_counts is None else self._prior_shift(settings.train_counts, counts)
        self._temperature = settings.temperature
        if settings.fit_temperature is not None:
            self._temperature = Validation([OpenedTable.open(settings.fit_temperature)], [table]).fit_temperature(0)
        if self._temperature is not None:
            self.facts["temperature"] = self._temperature
        if self._shift is not None:
            self.facts["tau"] = settings.tau

    def _prior_shift(self, path: Path, counts: Mapping[str, float] | None) -> np.ndarray:
        """(C,) float64 ``tau * log(share)``."""
        classes = self._table.classes
        found = read_prior(path, classes) if counts is None else shares(counts, classes, str(path))
        if (found <= 0).any():
            name = classes[int((found <= 0).argmax())]
            raise ScoresError(
                f"{path} counts no training sample of {name!r}, so its logits cannot be adjusted; count at least 1"
            )
        return self._settings.tau * np.log(found)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows, and their scores (n, C) as they are to be stored."""
        for block in self._table.read():
            values = self._table.scores[block]
            if self._temperature is not None or self._shift is not None:
                values = self._adjusted(values)
            with np.errstate(over="ignore"):
                scores = values.astype(self._settings.dtype)
            infinite = np.isinf(scores) & np.isfinite(values)
            if infinite.any():
                name = self._table.ids[block.start + int(infinite.any(1).argmax())].as_py()
                raise ScoresError(f"the adjusted scores of {name!r} are too large for {self._settings.dtype}")
            yield block, scores

    def _adjusted(self, scores: np.ndarray) -> np.ndarray:
        """(n, C) float64 of the table's kind."""
        kind, values = self._table.kind, scores.astype(np.float64)
        if kind == "probs":
            values = np.log(np.maximum(values, float(np.finfo(scores.dtype).smallest_subnormal)))
        if self._temperature is not None:
            values /= self._temperature
        if self._shift is not None:
            values -= self._shift
        if kind == "logits":
            return values
        values = log_normalise(values)
        return np.exp(values) if kind == "probs" else values

    def provenance(self) -> dict[str, Any]:
        """For the metadata: what was done, in order."""
        settings, done = self._settings, dict(self.facts)
        if settings.fit_temperature is not None:
            done["temperature_fitted_on"] = settings.fit_temperature.name
        if settings.train_counts is not None:
            done["train_counts"] = settings.train_counts.name
        if self.rules is not None:
            done["rules"] = self.rules.rules.model_dump(mode="json", exclude_defaults=True)
        return done
