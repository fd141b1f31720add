"""Entropic optimal transport with equal row sums and equal column sums, by this package and by other libraries.

A maker gets the problem ready as its library wants it. What it returns compiles where the library does so, for a number
of iterations, and gives a call that does nothing else than these, and the plan that they lead to apart from that.
"""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

# Levels of temperature that POT's eps-scaling takes at the least.
POT_LEVELS = 35
STABILIZED = ("sinkhorn_stabilized", "sinkhorn_epsilon_scaling")
NEVER = 1 << 62


@dataclass(frozen=True)
class Problem:
    """Scores (N, C) whose plan has row sums 1 / N and column sums 1 / C.

    Attributes:
        threads: of each solver.
        tolerance: L1 marginal error that is enough, for solvers that stop of their own accord.
    """

    scores: np.ndarray
    eps: float
    threads: int
    tolerance: float = 0.0

    def cost(self, dtype: type = np.float64) -> np.ndarray:
        """(N, C) as solvers of transport want it: small is good, and no less than 0."""
        cost: np.ndarray = -self.scores.astype(dtype)
        cost -= cost.min()
        return cost

    def shares(self, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
        """Marginals (N,) and (C,)."""
        return tuple(np.full(size, 1 / size, dtype) for size in self.scores.shape)  # type: ignore[return-value]


@dataclass(frozen=True)
class Solver:
    """A library with a problem.

    Attributes:
        ready: from a number of iterations to the call that does them.
        plan: from what such a call returned to the plan (N, C).
        spent: likewise to the passes that it took, where these are not the iterations asked for.
    """

    ready: Callable[[int], Callable[[], Any]]
    plan: Callable[[Any], np.ndarray]
    spent: Callable[[Any], int] | None = None


def marginal_error(plan: np.ndarray) -> float:
    """L1 distance of a plan's row sums from 1 / N and of its column sums from 1 / C, together."""
    sums = plan.sum(1, dtype=np.float64), plan.sum(0, dtype=np.float64)
    return float(sum(np.abs(one - 1 / len(one)).sum() for one in sums))


def plain_iterations(problem: Problem, most: int) -> int:
    """Iterations that Sinkhorn's plain algorithm takes to the tolerance, as most solvers here do it; at most `most`."""
    from fasttrain.kernels.softmax_colsum import softmax_colsum

    rows, columns = problem.scores.shape
    v = np.zeros(columns)
    for done in range(most):
        sums = softmax_colsum(problem.scores, v, problem.eps, threads=problem.threads)
        if done and np.abs(sums / rows - 1 / columns).sum() <= problem.tolerance:
            return done
        v += np.log(rows / columns) - np.log(sums)
    return most


def _own_plan(problem: Problem, v: np.ndarray) -> np.ndarray:
    values = problem.scores.astype(np.float64) / problem.eps + v
    values -= values.max(1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(1, keepdims=True) * len(values)
    return values


def _own_iterations(problem: Problem) -> Solver:
    """Plain updates, one pass each: what is compared iteration by iteration."""
    from fasttrain.kernels.softmax_colsum import softmax_colsum

    rows, columns = problem.scores.shape

    def run(iterations: int) -> np.ndarray:
        v = np.zeros(columns)
        for _ in range(iterations):
            sums = softmax_colsum(problem.scores, v, problem.eps, threads=problem.threads)
            v += np.log(rows / columns) - np.log(sums)
        return v

    return Solver(lambda iterations: partial(run, iterations), lambda v: _own_plan(problem, v))


def _own(problem: Problem) -> Solver:
    """The solver of `fasttrain redistribute --equality`, temperatures above the last one included."""
    from fasttrain.scores.redistribution.marginals import Marginals
    from fasttrain.scores.redistribution.passes import HostPasses
    from fasttrain.scores.redistribution.sinkhorn import solve

    rows, columns = problem.scores.shape
    passes = HostPasses(problem.scores, threads=problem.threads)
    counts = np.full(columns, rows / columns)
    call = partial(solve, passes, Marginals(counts, counts), eps=problem.eps, tolerance=problem.tolerance)
    return Solver(
        lambda iterations: partial(call, max_iterations=iterations),
        lambda found: _own_plan(problem, found.v),
        lambda found: found.iterations,
    )


def _pot(method: str, dtype: type = np.float64) -> Callable[[Problem], Solver]:
    def make(problem: Problem) -> Solver:
        import ot

        cost, (a, b) = problem.cost(dtype), problem.shares(dtype)

        def ready(iterations: int) -> Callable[[], np.ndarray]:
            # No look at the error where it can be left out: it would take a plan.
            options: dict[str, Any] = {"numItermax": iterations, "stopThr": 0.0, "warn": False}
            if method in STABILIZED:
                # Scalings begin at 1 / N. Above tau they go into the kernel, which is then made anew.
                options |= {"print_period": NEVER, "tau": 1e3 * max(cost.shape)}
            if method == "sinkhorn_epsilon_scaling":
                options |= {"numItermax": POT_LEVELS, "numInnerItermax": -(-iterations // POT_LEVELS)}
            return partial(ot.sinkhorn, a, b, cost, problem.eps, method=method, **options)

        return Solver(ready, lambda plan: plan)

    return make


def _geomloss(problem: Problem) -> Solver:
    import torch
    from geomloss import ot as geomloss

    torch.set_num_threads(problem.threads)
    cost = torch.from_numpy(problem.cost(np.float32))
    a, b = (torch.from_numpy(share) for share in problem.shares(np.float32))
    call = partial(geomloss.solve, cost, reg=problem.eps, a=a, b=b)
    return Solver(lambda iterations: partial(call, max_iter=iterations), lambda found: found.plan.numpy())


def _ott(problem: Problem) -> Solver:
    if hasattr(os, "sched_setaffinity"):  # XLA takes a thread for each core that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: problem.threads])
    import jax
    import jax.numpy as jnp
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    cost, (a, b) = problem.cost(np.float32), problem.shares(np.float32)
    geometry = Geometry(jnp.asarray(cost), epsilon=problem.eps)
    transport = LinearProblem(geometry, jnp.asarray(a), jnp.asarray(b))

    def ready(iterations: int) -> Callable[[], Any]:
        limits = {"min_iterations": iterations, "max_iterations": iterations, "inner_iterations": iterations}
        compiled = jax.jit(Sinkhorn(threshold=0.0, **limits)).lower(transport).compile()
        return lambda: jax.block_until_ready(compiled(transport).potentials)

    def plan(potentials: Any) -> np.ndarray:
        return np.asarray(geometry.transport_from_potentials(*potentials))

    return Solver(ready, plan)


Makers = dict[str, Callable[[Problem], Solver]]
_PEERS: Makers = {
    "pot-log": _pot("sinkhorn_log"),
    "pot-log-float32": _pot("sinkhorn_log", np.float32),
    "pot-stabilized": _pot("sinkhorn_stabilized"),
    "pot": _pot("sinkhorn"),
    "geomloss": _geomloss,
    "ott": _ott,
}
# Timed iteration by iteration, and as a whole.
ITERATIONS: Makers = {"fasttrain": _own_iterations, **_PEERS}
SOLVERS: Makers = {"fasttrain": _own, **_PEERS, "pot-scaling": _pot("sinkhorn_epsilon_scaling")}
_PACKAGES = {"pot": ("ot", "POT"), "geomloss": ("geomloss", "geomloss"), "ott": ("ott", "ott-jax")}


def missing() -> dict[str, str]:
    """Solvers whose library is not installed, and what brings it."""
    found = {}
    for name in SOLVERS:
        module, package = _PACKAGES.get(name.partition("-")[0], ("fasttrain", ""))
        if importlib.util.find_spec(module) is None:
            found[name] = f"{name}: {module} is not installed (pip install {package})"
    return found
