"""Entropic optimal transport with equal row and column sums, by this package's pass and by other libraries.

Each maker gets the problem ready as the library wants it; what it returns takes a number of iterations and gives the
plan's row sums and column sums, both of which should be those asked for.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Sums = tuple[np.ndarray, np.ndarray]  # of the plan's rows and columns, as shares of what they should be
Solver = Callable[[int], Sums]


@dataclass(frozen=True)
class Problem:
    """Scores (N, C) whose plan has row sums 1 / N and column sums 1 / C.

    Attributes:
        threads: of each solver.
    """

    scores: np.ndarray
    eps: float
    threads: int

    def cost(self) -> np.ndarray:
        """(N, C) float64 as solvers of transport want it: small is good, and no less than 0."""
        cost = -self.scores.astype(np.float64)
        return cost - cost.min()

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Marginals (N,) and (C,)."""
        return tuple(np.full(size, 1 / size) for size in self.scores.shape)  # type: ignore[return-value]


def marginal_error(sums: Sums) -> float:
    """L1 distance of the marginals from those asked for, rows and columns together."""
    return float(sum(np.abs(one - 1).mean() for one in sums))


def _ours(problem: Problem) -> Solver:
    from fasttrain.kernels.softmax_colsum import softmax_colsum

    rows, columns = problem.scores.shape

    def solve(iterations: int) -> Sums:
        v, sums = np.zeros(columns), np.zeros(columns)
        for _ in range(iterations):
            sums = softmax_colsum(problem.scores, v, problem.eps, threads=problem.threads)
            v += np.log(rows / columns) - np.log(sums)
        return np.ones(rows), sums * (columns / rows)

    return solve


def _pot(method: str) -> Callable[[Problem], Solver]:
    def make(problem: Problem) -> Solver:
        import ot

        cost, (a, b) = problem.cost(), problem.shares()

        def solve(iterations: int) -> Sums:
            # No check before the end: what it would take is not the solver's.
            options: dict[str, Any] = {"numItermax": iterations, "stopThr": 0.0, "warn": False}
            plan = ot.sinkhorn(a, b, cost, problem.eps, method=method, **options)
            return plan.sum(1) / a, plan.sum(0) / b

        return solve

    return make


def _geomloss(problem: Problem) -> Solver:
    import torch
    from geomloss import ot as geomloss

    torch.set_num_threads(problem.threads)
    cost = torch.from_numpy(problem.cost().astype(np.float32))
    a, b = (torch.from_numpy(share.astype(np.float32)) for share in problem.shares())

    def solve(iterations: int) -> Sums:
        plan = geomloss.solve(cost, reg=problem.eps, a=a, b=b, max_iter=iterations).plan
        return (plan.sum(1) / a).numpy(), (plan.sum(0) / b).numpy()

    return solve


def _ott(problem: Problem) -> Solver:
    import jax.numpy as jnp
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    cost = jnp.asarray(problem.cost().astype(np.float32))
    a, b = (jnp.asarray(share, jnp.float32) for share in problem.shares())
    transport = LinearProblem(Geometry(cost, epsilon=problem.eps), a, b)

    def solve(iterations: int) -> Sums:
        limits = {"min_iterations": iterations, "max_iterations": iterations, "inner_iterations": min(iterations, 10)}
        found = Sinkhorn(threshold=0.0, **limits)(transport)
        sums = [np.asarray(found.marginal(axis)) for axis in (1, 0)]
        return sums[0] / np.asarray(a), sums[1] / np.asarray(b)

    return solve


SOLVERS: dict[str, Callable[[Problem], Solver]] = {
    "fasttrain": _ours,
    "pot-log": _pot("sinkhorn_log"),
    "pot-stabilized": _pot("sinkhorn_stabilized"),
    "pot-scaling": _pot("sinkhorn_epsilon_scaling"),
    "pot": _pot("sinkhorn"),
    "geomloss": _geomloss,
    "ott": _ott,
}
_PACKAGES = {"pot": ("ot", "POT"), "geomloss": ("geomloss", "geomloss"), "ott": ("ott", "ott-jax")}


def missing() -> dict[str, str]:
    """Solvers whose library is not installed, and what brings it."""
    found = {}
    for name in SOLVERS:
        module, package = _PACKAGES.get(name.partition("-")[0], ("fasttrain", ""))
        if importlib.util.find_spec(module) is None:
            found[name] = f"{name}: {module} is not installed (pip install {package})"
    return found
