"""Labelled validation tables, one a model, that temperatures and weights are fitted on: never the ensembled samples."""

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from fasttrain.base.errors import ScoresError
from fasttrain.kernels.combine import combine
from fasttrain.scores.ensembles.joined import Joined
from fasttrain.scores.files.opened import OpenedTable, row_blocks
from fasttrain.scores.measures.figures import LEAST_LOG_P, likelihoods

# Fewer labelled samples than this say too little.
LEAST_SAMPLES = 10
# Scores of all models that are held at once (float32) where more than those of the true class are needed; of more
# samples a part is drawn.
HELD_ENTRIES = 1 << 27
# Temperatures are looked for between 1/20 and 20.
LARGEST_TEMPERATURE = 20.0
SEED = 0


class Validation:
    """What M models say of labelled samples.

    Attributes:
        rows: (n,) rows of the first table whose label is known.
        labels: (n,) int32 labels of these, as columns of the first table.

    Raises:
        ScoresError: the tables do not fit the ones that are ensembled, hold some of the same samples, or no labels.
    """

    def __init__(self, tables: Sequence[OpenedTable], targets: Sequence[OpenedTable]) -> None:
        if len(tables) != len(targets):
            raise ScoresError(
                f"{len(tables)} validation tables do not fit {len(targets)} tables; give one a model, in the same order"
            )
        for table, target in zip(tables, targets, strict=True):
            _refuse_other_model(table, target)
            _refuse_same_samples(table, target)
        self._joined = Joined(tables)
        self.rows = np.flatnonzero(self._joined.labels >= 0)
        self.labels = self._joined.labels[self.rows]
        if len(self.rows) < LEAST_SAMPLES:
            raise ScoresError(
                f"{tables[0].name} holds {len(self.rows)} labelled samples, too few to fit anything on (at least "
                f"{LEAST_SAMPLES}); `fasttrain scores import --labels` adds labels"
            )
        for _ in self._joined.blocks():  # checks the values
            pass

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def models(self) -> int:
        return len(self._joined.tables)

    def true_log_probs(self, number: int, temperature: float) -> np.ndarray:
        """(n,) float64 log-probability that one model gives the true class."""
        found, table = np.empty(len(self)), self._joined.tables[number]
        for block in row_blocks(len(self._joined), len(self._joined.classes)):
            first, last = np.searchsorted(self.rows, (block.start, block.stop))
            if first < last:
                scores = self._joined.scores(number, block)[self.rows[first:last] - block.start]
                found[first:last] = likelihoods(scores, table.kind, self.labels[first:last], temperature)[2]
                table.forget()
        return found

    def all_scores(self, space: str, temperatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores of each model for as many samples as may be held at once, in random order.

        Args:
            space: ``probs`` or ``log_probs``.
            temperatures: (M,).

        Returns:
            (M, n, C) float32 scores and (n,) int32 labels.
        """
        joined = self._joined
        columns = len(joined.classes)
        drawn = np.random.default_rng(SEED).permutation(len(self))[: max(1, HELD_ENTRIES // (self.models * columns))]
        values = np.empty((self.models, len(drawn), columns), np.float32)
        for number, (table, rows) in enumerate(zip(joined.tables, joined.rows, strict=True)):
            wanted = self.rows[drawn]
            combine(
                [table.scores],
                [1.0],
                space=space,
                kinds=[table.kind],
                temperatures=[float(temperatures[number])],
                columns=[joined.columns[number]],
                rows=[wanted if rows is None else rows[wanted]],
                out=values[number],
            )
            table.forget()
        return (np.maximum(values, LEAST_LOG_P, out=values) if space == "log_probs" else values), self.labels[drawn]

    def fit_temperature(self, number: int) -> float:
        """The temperature at which one model's NLL is smallest (Guo et al., ICML 2017), as precise as 1e-3."""
        from scipy.optimize import minimize_scalar

        limit = float(np.log(LARGEST_TEMPERATURE))
        found = minimize_scalar(
            lambda log_t: -self.true_log_probs(number, float(np.exp(log_t))).mean(),
            bounds=(-limit, limit),
            method="bounded",
            options={"xatol": 1e-3},
        )
        return float(np.exp(found.x))


def _refuse_other_model(table: OpenedTable, target: OpenedTable) -> None:
    if sorted(table.classes) != sorted(target.classes):
        odd = sorted(set(table.classes) ^ set(target.classes))
        raise ScoresError(f"{table.name} has other classes than {target.name} ({odd[0]!r} is in one of them only)")
    for key in ("checkpoint_hash", "model"):
        mine, its = table.meta.get(key), target.meta.get(key)
        if mine is not None and its is not None and mine != its:
            raise ScoresError(
                f"{table.name} is of another model than {target.name} ({key} {mine} and {its}); give the validation "
                "tables in the order of the tables"
            )


def _refuse_same_samples(table: OpenedTable, target: OpenedTable) -> None:
    fingerprint = table.meta.get("data_fingerprint")
    same = pc.is_in(table.ids, value_set=target.ids)
    shared = table.ids.filter(same)
    if len(shared) or (fingerprint is not None and fingerprint == target.meta.get("data_fingerprint")):
        told = f"{shared[0].as_py()!r} and {len(shared) - 1} more" if len(shared) else "the same data"
        raise ScoresError(
            f"{table.name} and {target.name} hold the same samples ({told}), so what is fitted on it would have seen "
            "their labels; fit on other samples"
        )
