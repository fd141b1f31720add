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
from fasttrain.tools.bench.score_solvers import SOLVERS, Problem, marginal_error

CALLS = 5  # of which the median counts, after one that does not
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
    from fasttrain.scores.redistribute import redistribute
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


def _solve(name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Solves a second to a marginal error (of the plan, L1): iterations are doubled until it is reached."""
    scores = np.array(mapped(folder, options)[: options["peer_rows"]])
    problem = Problem(scores, options["eps"], options["threads"])
    prepared = SOLVERS[name](problem)
    if options["iterations"]:
        prepared(1)
        return {"value": options["iterations"] / _once(lambda: prepared(options["iterations"]))}
    iterations = 4
    while iterations <= options["most_iterations"]:
        start = time.perf_counter()
        plan = prepared(iterations)
        seconds = time.perf_counter() - start
        error = marginal_error(plan)
        if error <= options["tolerance"]:
            return {"value": 1 / seconds, "iterations": iterations, "marginal_error": error}
        iterations *= 2
    raise RuntimeError(f"marginal error {error:.2g} after {iterations // 2} iterations")


def run(name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The figures of a contestant."""
    kind, _, which = name.partition(":")
    if kind == "solve":
        return _solve(which, folder, options)
    if kind == "pass" and which in ("native", "plain"):
        return _pass(folder, options, which)
    if kind == "ensemble":
        return _ensemble(folder, options, which)
    others = {"pass:torch": _torch_pass, "read": _read, "exp": _exponentials, "redistribute": _redistribute}
    return others[name](folder, options)


if __name__ == "__main__":
    print_figures(lambda: run(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])))
