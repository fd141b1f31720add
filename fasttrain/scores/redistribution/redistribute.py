"""Labels re-distributed under what is known of the class counts."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fasttrain.base.distributed import gather_on_all
from fasttrain.base.errors import ScoresError
from fasttrain.scores.redistribution.greedy_k import greedy_k_in_blocks
from fasttrain.scores.redistribution.labels import labels_of
from fasttrain.scores.redistribution.priors import ESTIMATE, TRAIN
from fasttrain.scores.redistribution.problem import read_problem
from fasttrain.scores.redistribution.settings import RedistributeSettings
from fasttrain.scores.table import ScoreTable

__all__ = ["RedistributeSettings", "redistribute", "sensitivity"]

SENSITIVITY_EPS = (0.1, 0.2, 0.5, 1.0)
SENSITIVITY_BOUNDS = ((0.95, 1.05), (0.9, 1.1), (0.8, 1.25), (0.5, 2.0))
SENSITIVITY_RELAX = (0.1, 0.5, 2.0, 10.0)


def redistribute(
    table: ScoreTable,
    settings: RedistributeSettings | None = None,
    *,
    counts: Mapping[str, float] | None = None,
) -> tuple[ScoreTable, dict[str, Any]]:
    """Assign a label to each sample of a table.

    The scores are read where they lie, once an iteration; a table of probabilities takes a second array of its size for
    their logarithms. In a torchrun job each rank reads its share of the rows; all return the same.

    Args:
        table: the scores.
        settings: see there.
        counts: of each class by name, instead of what ``settings.prior`` says.

    Returns:
        The table with ``assigned`` and ``assigned_p`` (scores unchanged), and a report: samples, changed (labels other
        than the argmax), iterations, converged (of the plan, and of an estimated prior), marginal_error, dual_gap,
        count_min, count_max, and where true labels are known top1_before and top1_after. A figure that the method does
        not have is None. Further where they mean something: rounding_gap (nats a sample that the labels are at most
        from the best ones within the bounds; round greedy and exact), capped (classes at the largest shift), and prior
        (figures of the estimate).

    Raises:
        ScoresError: see `fasttrain.scores.redistribution.sinkhorn.solve`, `marginals`, `priors` and `estimated_priors`.
    """
    settings = settings or RedistributeSettings()
    if settings.method == "greedy-k":
        return _by_greedy_k(table, settings)
    problem = read_problem(table, settings, counts)
    marginals, solution = problem.solve(settings)
    converged = solution.converged and (problem.estimate is None or problem.estimate.converged)
    figures: dict[str, Any] = {
        "iterations": solution.iterations,
        "converged": converged,
        "marginal_error": solution.marginal_error,
        "dual_gap": solution.dual_gap,
    }
    assigned, assigned_p, gap = labels_of(table, problem, marginals, solution, settings)
    extra: dict[str, Any] = {} if gap is None else {"rounding_gap": gap}
    if marginals.max_shift is not None:
        extra["capped"] = solution.capped
    if problem.estimate is not None:
        extra["prior"] = {"estimator": settings.estimator, **problem.estimate.figures}
    meta = {
        "method": "sinkhorn",
        "prior": settings.prior,
        # Shares of the training data, or guessed from scores, are no knowledge of these samples.
        "known_prior_used": settings.prior not in (TRAIN, ESTIMATE),
        "bounds": _told_bounds(settings),
        "max_shift": marginals.max_shift,
        "eps": settings.eps,
        "round": settings.round,
        **figures,
        **{("prior_estimate" if key == "prior" else key): value for key, value in extra.items()},
    }
    before = np.concatenate(gather_on_all(problem.before))
    return _with_labels(table, assigned, assigned_p, meta), _report(table, before, assigned, {**figures, **extra})


def _told_bounds(settings: RedistributeSettings) -> Any:
    if settings.equality:
        return "equality"
    return {"relax": settings.relax} if settings.relax is not None else [settings.lower, settings.upper]


def sensitivity(
    table: ScoreTable, settings: RedistributeSettings, *, counts: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """How the assigned labels depend on eps and on the width of the interval; true labels are not looked at.

    Returns:
        A row for each pair: eps, lower, upper (or relax, where `settings` has it), changed, agreement (share of labels
        equal to those of `settings`), converged, count_min, count_max. All by argmax rounding: whole counts need not
        exist within every interval.
    """
    if settings.method != "sinkhorn":
        raise ScoresError("a sensitivity table belongs to method sinkhorn")
    problem = read_problem(table, settings, counts)
    before = np.concatenate(gather_on_all(problem.before))

    def labels(changes: dict[str, Any]) -> tuple[np.ndarray, bool]:
        _, solution = problem.solve(settings.model_copy(update={"round": "argmax", **changes}))
        found = problem.passes.assign(solution.v, solution.eps)
        return np.concatenate(gather_on_all(found.label)), solution.converged

    if settings.relax is None:
        widths = [{"lower": f"{low}x", "upper": f"{high}x", "equality": False} for low, high in SENSITIVITY_BOUNDS]
        told: list[dict[str, float]] = [{"lower": low, "upper": high} for low, high in SENSITIVITY_BOUNDS]
    else:
        widths = told = [{"relax": strength} for strength in SENSITIVITY_RELAX]  # type: ignore[assignment]
    reference, _ = labels({})
    rows = []
    for eps in SENSITIVITY_EPS:
        for changes, names in zip(widths, told, strict=True):
            assigned, converged = labels({"eps": eps, **changes})
            agreement = float((assigned == reference).mean())
            class_counts = np.bincount(assigned, minlength=len(table.classes))
            rows.append(
                {
                    "eps": eps,
                    **names,
                    "agreement": agreement,
                    "changed": int((assigned != before).sum()),
                    "converged": converged,
                    "count_min": int(class_counts.min()),
                    "count_max": int(class_counts.max()),
                }
            )
    return rows


def _by_greedy_k(table: ScoreTable, settings: RedistributeSettings) -> tuple[ScoreTable, dict[str, Any]]:
    assert settings.k is not None  # the settings see to it
    before, assigned_p = table.argmax(), np.empty(len(table), np.float32)

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for rows in table.row_blocks():
            probs = table.probs(rows)
            assigned_p[rows] = probs.max(1)
            yield rows, probs

    assigned = greedy_k_in_blocks(before, blocks(), len(table.classes), settings.k)
    changed = np.flatnonzero(assigned != before)
    for part in table.row_blocks(slice(0, len(changed))):
        rows = changed[part]
        assigned_p[rows] = table.probs(rows)[np.arange(len(rows)), assigned[rows]]
    meta = {"method": "greedy-k", "k": settings.k, "known_prior_used": True}
    figures = dict.fromkeys(("iterations", "converged", "marginal_error", "dual_gap"))
    return _with_labels(table, assigned, assigned_p, meta), _report(table, before, assigned, figures)


def _with_labels(table: ScoreTable, assigned: np.ndarray, assigned_p: np.ndarray, meta: dict[str, Any]) -> ScoreTable:
    return table.with_assigned(assigned, assigned_p, {**table.meta, "redistribution": meta})


def _report(table: ScoreTable, before: np.ndarray, assigned: np.ndarray, figures: dict[str, Any]) -> dict[str, Any]:
    counts = np.bincount(assigned, minlength=len(table.classes))
    report = {
        "samples": len(table),
        "changed": int((assigned != before).sum()),
        **figures,
        "count_min": int(counts.min()),
        "count_max": int(counts.max()),
    }
    top1 = table.accuracy(before)
    if top1 is not None:
        report |= {"top1_before": top1, "top1_after": table.accuracy(assigned)}
    return report
