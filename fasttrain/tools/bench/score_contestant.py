"""One contestant of `bench scores`, in a process of its own: prints how often a second it does its work.

python -m fasttrain.tools.bench.score_contestant NAME FOLDER OPTIONS_AS_JSON
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.tools.bench.contestant_process import print_figures
from fasttrain.tools.bench.score_solvers import ITERATIONS, SOLVERS, Problem, marginal_error, plain_iterations

CALLS = 5  # of which the median counts, after one that does not
LONG_S = 2.0
SHORT_S = 0.05
ALLOWED = 0.75  # of the time that a contestant has, for what can be foreseen: it ends itself, and says how far it came
EXP_COLUMNS = 1024  # of the row whose exponentials are taken again and again: it stays in the first-level cache


def mapped(folder: Path, options: dict[str, Any], number: int = 0) -> np.ndarray:
    """(N, C) float16 scores of a table, mapped."""
    return np.load(folder / f"table{number}.npy", mmap_mode="r")[: options["rows"]]


def _once(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _rate(work: Callable[[], object]) -> dict[str, Any]:
    work()
    return {"value": 1 / statistics.median(_once(work) for _ in range(CALLS))}


def _pass(folder: Path, options: dict[str, Any], backend: str) -> dict[str, Any]:
    from fasttrain.kernels.softmax_colsum import softmax_colsum_dual

    scores, offsets = mapped(folder, options), np.linspace(-1, 1, options["columns"])
    return _rate(
        lambda: softmax_colsum_dual(scores, offsets, options["eps"], threads=options["threads"], backend=backend)  # type: ignore[arg-type]
    )


def _torch_pass(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    import torch

    from fasttrain.kernels import softmax_colsum_torch as plain

    torch.set_num_threads(options["threads"])
    plain.BLOCK_ENTRIES = 1 << 22
    passes = plain.TorchColumnSums(np.array(mapped(folder, options)), "cpu")
    return _rate(lambda: passes(np.linspace(-1, 1, options["columns"]), options["eps"]))


def _read(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from fasttrain.kernels import _native

    scores = mapped(folder, options)
    return _rate(lambda: _native.read_floor(scores=scores, threads=options["threads"]))


def _exponentials(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    from fasttrain.kernels import _native

    threads = options["threads"]
    row = np.ascontiguousarray(mapped(folder, options).reshape(-1)[None, :EXP_COLUMNS])
    repeats = round(options["rows"] * options["columns"] / row.size / threads)
    return _rate(lambda: _native.exponential_floor(row=row, repeats=repeats, threads=threads))


def _ensemble(folder: Path, options: dict[str, Any], using: str) -> dict[str, Any]:
    from fasttrain.kernels.combine import combine

    count = options["tables"]
    tables = [mapped(folder, options, number % options["files"]) for number in range(count)]
    work: Callable[..., Any] = combine
    more: dict[str, Any] = {"threads": options["threads"], "backend": using}
    if using == "torch":
        import torch

        from fasttrain.kernels.combine_torch import TorchCombine

        torch.set_num_threads(options["threads"])
        work, more = TorchCombine("cpu", triton=False), {}
        tables = [np.array(table) for table in tables]
    out = np.empty(tables[0].shape, np.float32)
    return _rate(lambda: work(tables, [1 / count] * count, space="probs", kinds=["logits"] * count, out=out, **more))


def _redistribute(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Solves a second, and the memory above that of the imports: what is mapped of the table's file is not counted."""
    from fasttrain.scores.redistribution.redistribute import redistribute
    from fasttrain.scores.table import ScoreTable
    from fasttrain.tools.bench.memory import PeakMemory

    scores = mapped(folder, options)
    names = [[str(number) for number in range(size)] for size in scores.shape]
    memory = PeakMemory(0.05)
    start = time.perf_counter()
    table = ScoreTable(names[0], scores, names[1], "logits")
    _, report = redistribute(table)
    seconds = time.perf_counter() - start
    peak = memory.stop()
    figures = {"value": 1 / seconds, "iterations": report["iterations"], "peak_bytes": peak}
    return figures if peak is None else {**figures, "peak_and_table": (peak + scores.nbytes) / scores.nbytes}


def _iteration(name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Iterations a second: what so many take beyond one, so that preparing, compiling and making the plan do not count.

    There are more of them where nine take less than what is beside them.
    """
    solver = ITERATIONS[name](_problem(folder, options))
    beside = min(_repeated(solver.ready(1)))
    count, seconds = 9, 0.0
    while count < options["most_iterations"]:
        seconds = min(_repeated(solver.ready(1 + count))) - beside
        if seconds > max(beside, SHORT_S):
            return {"value": count / seconds, "iterations": count}
        count *= 5
    raise RuntimeError("the problem is too small to time an iteration; take more --peer-rows")


def _repeated(work: Callable[[], object]) -> list[float]:
    """Seconds of some calls, of a single one if that is long."""
    found = [_once(work)]
    while len(found) < CALLS and sum(found) < LONG_S:
        found.append(_once(work))
    return found


def _solve(name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Solves a second to a marginal error (of the plan, L1).

    The first try has the iterations that the plain algorithm needs, each further one half as many more. The one that
    comes to the error counts; what compiling and the look at its plan take does not.
    """
    began = time.perf_counter()
    problem = _problem(folder, options)
    solver = SOLVERS[name](problem)
    solver.ready(1)()
    iterations = plain_iterations(problem, options["most_iterations"])
    while True:
        work = solver.ready(iterations)
        start = time.perf_counter()
        found = work()
        seconds = time.perf_counter() - start
        error = marginal_error(solver.plan(found))
        if error <= options["tolerance"]:
            spent = iterations if solver.spent is None else solver.spent(found)
            return {"value": 1 / seconds, "iterations": spent, "marginal_error": error}
        late = time.perf_counter() - began + 2 * seconds > ALLOWED * options["timeout_s"]
        if late or 2 * iterations > 3 * options["most_iterations"]:
            raise RuntimeError(f"marginal error {error:.2g} after {iterations} iterations, {seconds:.3g} s")
        iterations += -(-iterations // 2)


def _problem(folder: Path, options: dict[str, Any]) -> Problem:
    scores = np.array(mapped(folder, options)[: options["peer_rows"]])
    return Problem(scores, options["eps"], options["threads"], options["tolerance"])


def run(name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The figures of a contestant."""
    kind, _, which = name.partition(":")
    if kind in ("iteration", "solve"):
        return (_iteration if kind == "iteration" else _solve)(which, folder, options)
    if kind == "pass" and which in ("native", "plain"):
        return _pass(folder, options, which)
    if kind == "ensemble":
        return _ensemble(folder, options, which)
    others = {"pass:torch": _torch_pass, "read": _read, "exp": _exponentials, "redistribute": _redistribute}
    return others[name](folder, options)


if __name__ == "__main__":
    print_figures(lambda: run(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])))
