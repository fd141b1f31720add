"""Labels re-distributed under what is known of the class counts."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from fasttrain.base.config import Settings
from fasttrain.base.errors import ScoresError
from fasttrain.scores.greedy_k import greedy_k
from fasttrain.scores.marginals import UNIFORM, bounds, read_prior
from fasttrain.scores.rounding import round_argmax, round_exact, round_greedy
from fasttrain.scores.sinkhorn import solve
from fasttrain.scores.table import ScoreTable

SENSITIVITY_EPS = (0.1, 0.2, 0.5, 1.0)
SENSITIVITY_BOUNDS = ((0.95, 1.05), (0.9, 1.1), (0.8, 1.25), (0.5, 2.0))
PLAN_BLOCK_ROWS = 4096


class RedistributeSettings(Settings):
    """How labels are re-distributed. The defaults were set without looking at the labels of any test set.

    Attributes:
        method: ``sinkhorn``, or the ``greedy-k`` baseline.
        prior: ``uniform`` or a CSV file of class and count.
        equality: counts are to be exactly ``prior * N``.
        lower, upper: bounds of the counts, as a factor of ``prior * N`` (``0.9x``) or as a count.
        eps: temperature on log-probabilities.
        tolerance: of the marginal error, as a share of the samples.
        round: from the plan to labels: ``argmax``, ``greedy`` or ``exact`` (the last two keep the bounds exactly).
        k: samples that a class should have at least, for ``greedy-k``, which has no other setting.
        device: where the passes over the scores run: ``cpu`` (NumPy) or ``cuda`` (torch).
    """

    method: Literal["sinkhorn", "greedy-k"] = "sinkhorn"
    prior: str = UNIFORM
    equality: bool = False
    lower: str = "0.9x"
    upper: str = "1.1x"
    eps: float = Field(default=0.2, gt=0)
    tolerance: float = Field(default=1e-3, gt=0)
    round: Literal["argmax", "greedy", "exact"] = "argmax"
    k: int | None = Field(default=None, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "RedistributeSettings":
        if (self.method == "greedy-k") != (self.k is not None):
            raise ValueError("k belongs to method greedy-k, which needs it")
        if self.method == "greedy-k" and (idle := self.model_fields_set - {"method", "k"}):
            raise ValueError(f"method greedy-k has no {', '.join(sorted(idle))}")
        if self.equality and (idle := self.model_fields_set & {"lower", "upper"}):
            raise ValueError(f"equality leaves no room for {' and '.join(sorted(idle))}; give one or the other")
        return self


def redistribute(table: ScoreTable, settings: RedistributeSettings | None = None) -> tuple[ScoreTable, dict[str, Any]]:
    """Assign a label to each sample of a table.

    Returns:
        The table with ``assigned`` and ``assigned_p`` (scores unchanged), and a report: samples, changed (labels other
        than the argmax), iterations, converged, marginal_error, dual_gap, count_min, count_max, and where true labels
        are known top1_before and top1_after. A figure that the method does not have is None.

    Raises:
        ScoresError: see `fasttrain.scores.sinkhorn.solve` and `fasttrain.scores.marginals`.
    """
    settings = settings or RedistributeSettings()
    if settings.method == "greedy-k":
        return _by_greedy_k(table, settings)
    prior = read_prior(settings.prior, table.classes)
    marginals = bounds(prior, len(table), settings.lower, settings.upper, settings.equality)
    log_probs = _log_probs32(table)
    passes = _passes(log_probs, settings.device)
    solution = solve(log_probs, marginals, eps=settings.eps, tolerance=settings.tolerance, column_sums=passes)
    assigned = round_exact(log_probs, marginals) if settings.round == "exact" else None
    priced = np.add(log_probs, solution.potential.astype(np.float32), out=log_probs)  # a second matrix is not needed
    if assigned is None:
        assigned = round_greedy(priced, marginals) if settings.round == "greedy" else round_argmax(priced)
    assigned_p = _plan_entries(priced, solution.eps, assigned)
    meta = {
        "method": "sinkhorn",
        "prior": settings.prior,
        "known_prior_used": True,
        "bounds": "equality" if settings.equality else [settings.lower, settings.upper],
        "eps": settings.eps,
        "round": settings.round,
        "iterations": solution.iterations,
        "converged": solution.converged,
        "marginal_error": solution.marginal_error,
        "dual_gap": solution.dual_gap,
    }
    figures = {key: meta[key] for key in ("iterations", "converged", "marginal_error", "dual_gap")}
    return _with_labels(table, assigned, assigned_p, meta), _report(table, assigned, figures)


def sensitivity(table: ScoreTable, settings: RedistributeSettings) -> list[dict[str, Any]]:
    """How the assigned labels depend on eps and on the width of the interval; true labels are not looked at.

    Returns:
        A row for each pair: eps, lower, upper, changed, agreement (share of labels equal to those of `settings`),
        converged, count_min, count_max. All by argmax rounding: whole counts need not exist within every interval.
    """
    if settings.method != "sinkhorn":
        raise ScoresError("a sensitivity table belongs to method sinkhorn")
    settings = settings.model_copy(update={"round": "argmax"})
    reference, _ = redistribute(table, settings)
    rows = []
    for eps in SENSITIVITY_EPS:
        for low, high in SENSITIVITY_BOUNDS:
            changed = {"eps": eps, "lower": f"{low}x", "upper": f"{high}x", "equality": False}
            result, report = redistribute(table, settings.model_copy(update=changed))
            agreement = float((result.predictions("assigned") == reference.predictions("assigned")).mean())
            figures = {key: report[key] for key in ("changed", "converged", "count_min", "count_max")}
            rows.append({"eps": eps, "lower": low, "upper": high, "agreement": agreement, **figures})
    return rows


def _by_greedy_k(table: ScoreTable, settings: RedistributeSettings) -> tuple[ScoreTable, dict[str, Any]]:
    assert settings.k is not None  # the settings see to it
    probs = table.probs()
    assigned = greedy_k(probs, settings.k)
    assigned_p = probs[np.arange(len(table)), assigned].astype(np.float32)
    meta = {"method": "greedy-k", "k": settings.k, "known_prior_used": True}
    figures = dict.fromkeys(("iterations", "converged", "marginal_error", "dual_gap"))
    return _with_labels(table, assigned, assigned_p, meta), _report(table, assigned, figures)


def _log_probs32(table: ScoreTable) -> np.ndarray:
    """(N, C) float32 log-probabilities, made block by block."""
    result = np.empty(table.scores.shape, np.float32)
    for start in range(0, len(table), PLAN_BLOCK_ROWS):
        block = slice(start, start + PLAN_BLOCK_ROWS)
        result[block] = table.log_probs(block)
    return result


def _passes(log_probs: np.ndarray, device: str) -> Callable[[np.ndarray, float], np.ndarray] | None:
    """The pass over the scores on a device; None for the solver's own, on the CPU."""
    if device == "cpu":
        return None
    import torch

    from fasttrain.kernels.softmax_colsum_torch import TorchColumnSums

    if not torch.cuda.is_available():
        raise ScoresError("torch sees no CUDA device on this machine; leave out --device cuda")
    return TorchColumnSums(log_probs, device)


def _plan_entries(priced: np.ndarray, eps: float, assigned: np.ndarray) -> np.ndarray:
    """(N,) float32 entry of the transport plan ``softmax(priced / eps)`` at each assigned label."""
    entries = np.empty(len(assigned), np.float32)
    for start in range(0, len(assigned), PLAN_BLOCK_ROWS):
        block = slice(start, start + PLAN_BLOCK_ROWS)
        exponent = priced[block].astype(np.float64) / eps
        exponent -= exponent.max(1, keepdims=True)
        plan = np.exp(exponent)
        chosen = np.take_along_axis(plan, assigned[block, None].astype(np.int64), 1)[:, 0]
        entries[block] = chosen / plan.sum(1)
    return entries


def _with_labels(table: ScoreTable, assigned: np.ndarray, assigned_p: np.ndarray, meta: dict[str, Any]) -> ScoreTable:
    return ScoreTable(
        ids=table.ids,
        scores=table.scores,
        classes=table.classes,
        kind=table.kind,
        labels=table.labels,
        assigned=assigned,
        assigned_p=assigned_p,
        meta={**table.meta, "redistribution": meta},
    )


def _report(table: ScoreTable, assigned: np.ndarray, figures: dict[str, Any]) -> dict[str, Any]:
    counts = np.bincount(assigned, minlength=len(table.classes))
    argmax = table.argmax()
    report = {
        "samples": len(table),
        "changed": int((assigned != argmax).sum()),
        **figures,
        "count_min": int(counts.min()),
        "count_max": int(counts.max()),
    }
    before = table.accuracy(argmax)
    if before is not None:
        report |= {"top1_before": before, "top1_after": table.accuracy(assigned)}
    return report
