"""From a solved plan to one label a sample, over all ranks of a job."""

import numpy as np

from fasttrain.base.distributed import gather_on_all, gather_on_main
from fasttrain.kernels.assign import Assigned
from fasttrain.scores.redistribution.exact import round_exact
from fasttrain.scores.redistribution.marginals import Marginals
from fasttrain.scores.redistribution.passes import CalibratedPasses, HostPasses, Passes, log_scores
from fasttrain.scores.redistribution.problem import Problem
from fasttrain.scores.redistribution.rounding import CANDIDATES, round_greedy
from fasttrain.scores.redistribution.settings import RedistributeSettings
from fasttrain.scores.redistribution.sinkhorn import SinkhornResult
from fasttrain.scores.table import ScoreTable


def labels_of(
    table: ScoreTable,
    problem: Problem,
    marginals: Marginals,
    solution: SinkhornResult,
    settings: RedistributeSettings,
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Labels (N,) int32, their probabilities (N,) float32, and what the labels can be from the best, nats a sample.

    In a torchrun job every rank returns all of them; the main one rounds.
    """
    passes = problem.passes
    found = passes.assign(solution.v, solution.eps, 0 if settings.round == "argmax" else CANDIDATES)
    if settings.round == "argmax":
        parts = gather_on_all((found.label, found.probability))
        labels, probabilities = (np.concatenate(part) for part in zip(*parts, strict=True))
        return labels, probabilities, None
    gathered = gather_on_main(found)
    result = None
    if gathered is not None:
        whole = _joined(gathered)
        everything = passes if len(gathered) == 1 else _all_rows(table, passes)
        result = _whole_labels(everything, whole, marginals, solution, settings.round)
    return gather_on_all(result)[0]


def _whole_labels(
    passes: Passes, found: Assigned, marginals: Marginals, solution: SinkhornResult, how: str
) -> tuple[np.ndarray, np.ndarray, float]:
    lower, upper = _whole_bounds(marginals, solution, passes.samples)
    if how == "exact":
        result = round_exact(passes, solution.potential, found, lower, upper, solution.eps)
        labels, gap = result.label, result.gap
        own = _scores_at(passes, labels)
    else:
        assert found.top_values is not None
        labels = round_greedy(passes, solution.potential, found, lower, upper)
        own = _scores_at(passes, labels)
        price = np.where(upper > 0, solution.potential, 0.0)
        best = found.top_values[:, 0].sum(dtype=np.float64) + np.maximum(-price * lower, -price * upper).sum()
        gap = max(0.0, float(best - own.sum()))
    exponent = own / solution.eps + solution.v[labels] - found.log_normaliser
    return labels, np.exp(np.minimum(exponent, 0.0)).astype(np.float32), gap / passes.samples


def _whole_bounds(marginals: Marginals, solution: SinkhornResult, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Bounds that whole counts can keep: around the plan's own sums, where these need not keep the marginals."""
    if marginals.relax is None and not solution.capped:
        return marginals.whole(samples)
    lower = np.floor(np.minimum(marginals.lower, solution.sums) + 1e-9)
    upper = np.ceil(np.maximum(marginals.upper, solution.sums) - 1e-9)
    if marginals.relax is not None:
        lower, upper = np.floor(solution.sums + 1e-9), np.ceil(solution.sums - 1e-9)
    return lower.astype(np.int64), np.minimum(upper, samples).astype(np.int64)


def _scores_at(passes: Passes, labels: np.ndarray) -> np.ndarray:
    own = np.empty(len(labels))
    step = max(1, (1 << 18) // passes.columns)
    for start in range(0, len(labels), step):
        part = slice(start, start + step)
        own[part] = np.take_along_axis(passes.values(part), labels[part, None].astype(np.int64), 1)[:, 0]
    return own


def _joined(parts: list[Assigned]) -> Assigned:
    """What the ranks found, one after the other."""
    names = Assigned.__dataclass_fields__
    return Assigned(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _all_rows(table: ScoreTable, passes: Passes) -> Passes:
    """The same scores, all rows of them on this rank; for reading values alone."""
    everything = HostPasses(log_scores(table, slice(None)))
    return passes.over(everything) if isinstance(passes, CalibratedPasses) else everything
