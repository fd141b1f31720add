"""Many models' score tables as one, read and written in row blocks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from fasttrain.base.config import Settings, load_settings
from fasttrain.base.errors import ScoresError
from fasttrain.scores.ensembles import weights as ensemble_weights
from fasttrain.scores.ensembles.combiner import combiner
from fasttrain.scores.ensembles.joined import Joined
from fasttrain.scores.ensembles.validation_tables import Validation
from fasttrain.scores.ensembles.votes import agreement, count_ties, rank_blocks, vote_blocks
from fasttrain.scores.files.opened import OpenedTable, row_blocks, writing
from fasttrain.scores.files.value_check import first_bad_row
from fasttrain.scores.measures.figures import Figures
from fasttrain.scores.table import ScoreTable

NAMED_WEIGHTS = ("uniform", "accuracy", "fit", "greedy", "agreement")
Block = tuple[slice, np.ndarray]


class EnsembleSettings(Settings):
    """How tables become one.

    Attributes:
        method: ``average`` of scores; ``rank``: of each class's rank in its row; ``vote``: one vote a table.
        weights: numbers, one a table, used as they are in logits space and scaled to sum 1 elsewhere; ``uniform``;
            ``accuracy``: ``(top1 / smallest top1) ** factor`` of the stored validation figures; ``fit`` and ``greedy``:
            on validation tables (see `ensemble_fit` and `ensemble_greedy`); ``agreement`` with the majority, for votes.
            By default uniform, and of votes agreement.
        space: what is averaged: ``logits`` (gives logits), ``probs`` (gives probs), or ``log_probs`` (the weighted
            geometric mean, normalised; gives log_probs).
        factor: exponent of ``accuracy`` (25 in the system that the formula is from).
        temperatures: that the logits, or log-probabilities, of each table are divided by before: numbers, or ``fit``
            on the validation tables.
        objective: of ``greedy``.
        bags: of ``greedy``.
        dtype: of the scores that are written.
        device: where scores are combined.
    """

    method: Literal["average", "rank", "vote"] = "average"
    weights: str | tuple[float, ...] | None = None
    space: Literal["logits", "probs", "log_probs"] = "probs"
    factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    temperatures: Literal["fit"] | tuple[float, ...] | None = None
    objective: Literal["nll", "accuracy"] = "nll"
    bags: int = Field(default=1, ge=1, le=1000)
    dtype: Literal["float32", "float16"] = "float32"
    device: Literal["cpu", "cuda"] = "cpu"

    @field_validator("weights")
    @classmethod
    def _known_name(cls, weights: str | tuple[float, ...] | None) -> str | tuple[float, ...] | None:
        if isinstance(weights, str) and weights not in NAMED_WEIGHTS:
            raise ValueError(f"weights are {', '.join(NAMED_WEIGHTS)} or one number a table")
        return weights

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "EnsembleSettings":
        given = self.model_fields_set
        if self.method != "average" and (idle := given & {"space", "temperatures", "device"}):
            raise ValueError(f"method {self.method} has no {', '.join(sorted(idle))}")
        if self.method != "average" and self.weights in ("fit", "greedy"):
            raise ValueError(f"weights {self.weights} belong to method average")
        if self.method != "vote" and self.weights == "agreement":
            raise ValueError("weights agreement belong to method vote")
        if self.weights != "accuracy" and "factor" in given:
            raise ValueError("a factor belongs to weights accuracy")
        if self.weights != "greedy" and (idle := given & {"objective", "bags"}):
            raise ValueError(f"{' and '.join(sorted(idle))} belong to weights greedy")
        return self

    @property
    def fits(self) -> bool:
        """Whether anything is fitted on validation tables."""
        return self.weights in ("fit", "greedy") or self.temperatures == "fit"


def ensemble(
    tables: Sequence[ScoreTable],
    settings: EnsembleSettings | None = None,
    *,
    validation: Sequence[ScoreTable] = (),
    **changes: Any,
) -> ScoreTable:
    """Weighted combination of tables that are in memory, joined by id in the order of the first one.

    Args:
        tables: at least one; the same ids and classes in each, in any order.
        settings: see there.
        validation: labelled tables of other samples, one of each model, for what is fitted.
        changes: settings by name.

    Raises:
        ConfigError: a setting is wrong.
        ScoresError: the tables do not fit together, or have not what the settings need.
    """
    settings = load_settings(
        EnsembleSettings, {**(settings.model_dump(exclude_unset=True) if settings else {}), **changes}, "ensemble"
    )
    opened = [OpenedTable.of(table, f"table {number + 1}") for number, table in enumerate(tables)]
    labelled = [OpenedTable.of(table, f"validation table {number + 1}") for number, table in enumerate(validation)]
    plan = _Plan(opened, labelled, settings)
    scores = np.empty(tables[0].scores.shape, settings.dtype)
    for block, part in plan.blocks():
        scores[block] = part
    return ScoreTable(
        ids=tables[0].ids,
        scores=scores,
        classes=tables[0].classes,
        kind=plan.kind,  # type: ignore[arg-type]  # one of the three
        labels=plan.joined.labels,
        meta=plan.meta(),
    )


def ensemble_files(
    paths: Sequence[str | Path],
    out: str | Path,
    settings: EnsembleSettings,
    *,
    validation: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """As `ensemble`, from files to a file, of which none is ever whole in memory.

    Returns:
        {samples, tables, weights}, where they were used temperatures, agreement, tied (samples whose most votes go to
        several labels, of which the lowest counts) and fit (how the weights were found), and where labels are known
        top1, nll (nats) and ece (15 bins of equal width) of what was written.
    """
    opened = [OpenedTable.open(path) for path in paths]
    plan = _Plan(opened, [OpenedTable.open(path) for path in validation], settings)
    figures, joined = Figures(), plan.joined
    head: dict[str, Any] = {"ids": joined.ids, "labels": joined.labels, "classes": joined.classes}
    with writing(out, **head, kind=plan.kind, meta=plan.meta(), dtype=settings.dtype) as writer:
        for block, scores in plan.blocks():
            writer.put(block, scores)
            figures.add(scores, plan.kind, joined.labels[block])
    told = {"samples": len(joined), "tables": len(opened), "weights": [float(weight) for weight in plan.weights]}
    return {**told, **plan.facts, **figures.result()}


@dataclass
class _Plan:
    """Tables that fit together, and all that is decided before their scores are combined.

    Attributes:
        weights: (M,).
        temperatures: (M,), or None.
        kind: of the result.
        facts: for the report and the metadata.
    """

    tables: Sequence[OpenedTable]
    validation: Sequence[OpenedTable]
    settings: EnsembleSettings
    joined: Joined = field(init=False)
    weights: np.ndarray = field(init=False)
    temperatures: np.ndarray | None = field(init=False, default=None)
    kind: str = field(init=False)
    facts: dict[str, Any] = field(init=False, default_factory=dict)
    _votes: np.ndarray | None = field(init=False, default=None)
    _combine: Callable[..., Any] = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        self._combine = combiner(settings.device)  # a device that is not there is told first
        self.kind = settings.space if settings.method == "average" else "probs"
        self.joined = Joined(self.tables)
        if self.kind == "logits":
            _require_logits([*self.tables, *self.validation])
        if settings.fits != bool(self.validation):
            raise ScoresError(
                "weights fit and greedy, and temperatures fit, need validation tables, one a model (--validation)"
                if settings.fits
                else "nothing is fitted, so validation tables have no effect; leave them out, or use --weights fit"
            )
        labelled = Validation(self.validation, self.tables) if self.validation else None
        self._set_temperatures(labelled)
        self._set_weights(labelled)

    def _set_temperatures(self, labelled: Validation | None) -> None:
        wanted = self.settings.temperatures
        if wanted == "fit":
            assert labelled is not None  # checked before
            self.temperatures = np.array([labelled.fit_temperature(number) for number in range(labelled.models)])
        elif wanted is not None:
            self.temperatures = ensemble_weights.given_temperatures(self.tables, wanted)
        if self.temperatures is not None:
            self.facts["temperatures"] = self.temperatures.tolist()

    def _set_weights(self, labelled: Validation | None) -> None:
        settings, wanted = self.settings, self.settings.weights
        if settings.method == "vote":
            self._votes = self.joined.argmax()
        if wanted == "agreement" or (wanted is None and settings.method == "vote"):
            assert self._votes is not None  # the settings see to it
            agreed = agreement(self._votes)
            self.weights, self.facts["agreement"] = agreed / agreed.sum(), agreed.tolist()
        elif wanted is None or wanted == "uniform":
            self.weights = ensemble_weights.uniform_weights(self.tables)
        elif wanted == "accuracy":
            self.weights = ensemble_weights.accuracy_weights(self.tables, settings.factor)
        elif isinstance(wanted, str):
            assert labelled is not None  # checked before
            self.weights = self._fitted(labelled)
        else:
            self.weights = ensemble_weights.given_weights(self.tables, wanted, scale=self.kind != "logits")
        if self._votes is not None:
            self.facts["tied"] = count_ties(self._votes, self.weights)

    def _fitted(self, labelled: Validation) -> np.ndarray:
        settings = self.settings
        temperatures = np.ones(labelled.models) if self.temperatures is None else self.temperatures
        if settings.weights == "fit":
            from fasttrain.scores.ensembles.fit import fit_weights

            fitted = fit_weights(labelled, settings.space, temperatures)
        else:
            from fasttrain.scores.ensembles.greedy import greedy_weights

            fitted = greedy_weights(
                labelled, settings.space, temperatures, objective=settings.objective, bags=settings.bags
            )
        self.facts["fit"] = fitted.facts
        return fitted.weights

    def blocks(self) -> Iterator[Block]:
        """Rows, and their scores (n, C) as they are to be stored; each result is good until the next one."""
        for block, values in self._blocks():
            with np.errstate(over="ignore"):
                scores = values.astype(self.settings.dtype, copy=False)
            bad = first_bad_row(scores, self.kind)
            if bad is not None:
                raise ScoresError(
                    f"the combined scores of {self.joined.ids[block.start + bad].as_py()!r} are no {self.kind}: too "
                    f"large for {self.settings.dtype}, or the tables leave no class possible; take another space or "
                    "--dtype float32"
                )
            yield block, scores

    def _blocks(self) -> Iterator[Block]:
        joined, settings = self.joined, self.settings
        if settings.method == "rank":
            return rank_blocks(joined, self.weights)
        if settings.method == "vote":
            assert self._votes is not None  # see _set_weights
            blocks = row_blocks(len(joined), len(joined.classes))
            return vote_blocks(self._votes, self.weights, blocks, len(joined.classes))
        return self._averages()

    def _averages(self) -> Iterator[Block]:
        used = np.flatnonzero(self.weights)  # a table of weight 0 is not even read
        joined = self.joined.only(used.tolist())
        temperatures = None if self.temperatures is None else self.temperatures[used].tolist()
        buffer = np.empty(0, self.settings.dtype)
        for block in joined.blocks():
            shape = (block.stop - block.start, len(joined.classes))
            buffer = buffer if buffer.size else np.empty(shape, self.settings.dtype)
            out = buffer[: shape[0]]
            arrays, rows = joined.sources(block)
            with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused by name
                self._combine(
                    arrays,
                    self.weights[used].tolist(),
                    space=self.settings.space,
                    kinds=[table.kind for table in joined.tables],
                    temperatures=temperatures,
                    columns=joined.columns,
                    rows=rows,
                    out=out,
                )
            yield block, out

    def _common(self, key: str) -> Any:
        """What all tables say under a key of their metadata; None where they differ."""
        values = [table.meta.get(key) for table in self.tables]
        return values[0] if all(value == values[0] for value in values) else None

    def meta(self) -> dict[str, Any]:
        """Metadata of the result."""
        settings = self.settings
        return {
            "method": "ensemble",
            "combination": settings.method,
            **({"space": settings.space} if settings.method == "average" else {}),
            "weights": [float(weight) for weight in self.weights],
            **self.facts,
            "models": [table.meta.get("model") for table in self.tables],
            "data_fingerprint": self.tables[0].meta.get("data_fingerprint"),
            "train_counts": self._common("train_counts"),
        }


def _require_logits(tables: Sequence[OpenedTable]) -> None:
    for table in tables:
        if table.kind != "logits":
            raise ScoresError(
                f"{table.name} holds {table.kind}, which cannot become logits; use --space probs or log_probs"
            )
