"""`bench scores`: passes over a generated score matrix beside what nothing can beat, ensembles, and peers' solvers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasttrain.base.errors import ConfigError
from fasttrain.base.process import available_cores
from fasttrain.kernels.softmax_colsum import native_there
from fasttrain.tools.bench.measure import (
    Contestant,
    Outcome,
    interleaved,
    machine_facts,
    python_command,
    ratio,
    scratch_folder,
)
from fasttrain.tools.bench.score_solvers import ITERATIONS, SOLVERS, missing

FILES = 4  # tables that are written; larger ensembles read them again
BLOCK_ROWS = 1024
THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
)  # read by peers' libraries as they load


@dataclass(frozen=True)
class ScoresBench:
    """What is measured.

    Attributes:
        rows, columns: of the float16 table.
        eps: temperature of the pass and of the solvers.
        tables: of the ensemble, which has a tenth of the rows.
        peer_rows: of the problem whose iterations are timed; peers hold it several times in float64.
        solve_rows: of the problem that is solved whole.
        tolerance: L1 marginal error to which it is solved.
        threads: of each contestant; None for one a core.
        only: names of contestants, or ``iteration`` or ``solve`` for all of that work; empty for all that are there.
    """

    rows: int = 90_000
    columns: int = 5_000
    eps: float = 0.2
    tables: int = 17
    peer_rows: int = 9_000
    solve_rows: int = 2_000
    tolerance: float = 1e-3
    threads: int | None = None
    rounds: int = 5
    only: Sequence[str] = ()
    timeout_s: float = 600.0
    scratch: Path | None = None


def bench_scores(settings: ScoresBench) -> dict[str, Any]:
    """Run all contestants in turns.

    Returns:
        machine, results (in work a second), ratios (above 1: the first is faster) and missing, as all ``bench``
        commands give them. ``pass / read`` and ``pass / exp`` are beside reading the bytes, and beside the exponentials
        of as many entries that lie in the cache.

    Raises:
        ConfigError: an unknown contestant, or the native kernels are not there.
    """
    if not native_there():
        raise ConfigError("bench scores measures the native kernels, which were not built; see `fasttrain doctor`")
    threads, absent = settings.threads or available_cores(), missing()
    with scratch_folder(settings.scratch) as folder:
        generate(folder, settings.rows, settings.columns)
        contestants = [one for one in _contestants(folder, settings, threads) if one.name not in _out(absent)]
        names, works = {one.name for one in contestants}, {one.labels["work"] for one in contestants}
        unknown = sorted(set(settings.only) - names - works)
        if unknown:
            known = ", ".join(one.name for one in contestants)
            raise ConfigError(f"no contestant is named {unknown[0]!r} here; there are: {known}")
        of_works = set(settings.only) - names
        chosen = [
            one
            for one in contestants
            if not settings.only or one.name in settings.only or one.labels["work"] in of_works
        ]
        outcomes = interleaved(chosen, settings.rounds, settings.timeout_s)
    return {
        "machine": machine_facts(),
        "rows": settings.rows,
        "columns": settings.columns,
        "eps": settings.eps,
        "tables": settings.tables,
        "peer_rows": settings.peer_rows,
        "solve_rows": settings.solve_rows,
        "tolerance": settings.tolerance,
        "results": [_exact(outcome) for outcome in outcomes],
        "ratios": _ratios(outcomes),
        "missing": sorted(set(absent.values())),
    }


def _exact(outcome: Outcome) -> dict[str, Any]:
    """Slow works need more digits than one behind the point."""
    entry = outcome.as_json()
    if "rounds" in entry:
        ordered = sorted(outcome.rounds)
        figures = {"median": float(np.median(ordered)), "min": ordered[0], "max": ordered[-1]}
        entry |= {key: float(f"{value:.5g}") for key, value in figures.items()}
        entry["rounds"] = [float(f"{value:.5g}") for value in outcome.rounds]
    return entry


def generate(folder: Path, rows: int, columns: int) -> None:
    """Write `FILES` tables (N, C) float16 of log-probabilities; each class is favoured by some of the rows."""
    for number in range(FILES):
        generator = np.random.default_rng(number)
        bias = generator.normal(size=columns).astype(np.float32)
        table = np.lib.format.open_memmap(
            folder / f"table{number}.npy", "w+", np.float16, (_rows(rows, number), columns)
        )
        for start in range(0, len(table), BLOCK_ROWS):
            block = generator.standard_normal((min(BLOCK_ROWS, len(table) - start), columns), np.float32) * 2 + bias
            block[np.arange(len(block)), generator.integers(0, columns, len(block))] += 6
            top = block.max(1, keepdims=True)
            block -= top + np.log(np.exp(block - top).sum(1, keepdims=True))
            table[start : start + BLOCK_ROWS] = block
        table.flush()


def _rows(rows: int, number: int) -> int:
    """The first table is the large one; the others are for ensembles alone."""
    return rows if number == 0 else max(1, rows // 10)


def _contestants(folder: Path, settings: ScoresBench, threads: int) -> list[Contestant]:
    shared = {"rows": settings.rows, "columns": settings.columns, "eps": settings.eps, "threads": threads}
    ensemble = {**shared, "rows": _rows(settings.rows, 1), "tables": settings.tables, "files": FILES}
    peers = {**shared, "peer_rows": min(settings.peer_rows, settings.rows), "tolerance": settings.tolerance}
    found = []

    def add(name: str, work: str, key: str, options: dict[str, Any], unit: str) -> None:
        labels = {"work": work, "threads": threads}
        command = python_command("fasttrain.tools.bench.score_contestant", key, folder, json.dumps(options))
        command = ["env", *(f"{name}={threads}" for name in THREAD_SETTINGS), *command]
        found.append(Contestant(name, labels, command, unit))

    for name, key in (("pass", "pass:native"), ("read", "read"), ("exp", "exp")):
        add(name, "pass", key, shared, "passes/s")
    for name in ("plain", "torch"):
        add(f"pass-{'numpy' if name == 'plain' else name}", "pass", f"pass:{name}", shared, "passes/s")
    for name, key in (("ensemble", "native"), ("ensemble-numpy", "plain"), ("ensemble-torch", "torch")):
        add(name, "ensemble", f"ensemble:{key}", ensemble, "ensembles/s")
    add("redistribute", "redistribute", "redistribute", shared, "solves/s")
    limits = {"most_iterations": 4096, "timeout_s": settings.timeout_s}
    for name in ITERATIONS:
        add(f"iteration-{name}", "iteration", f"iteration:{name}", {**peers, **limits}, "iterations/s")
    whole = {**peers, **limits, "peer_rows": min(settings.solve_rows, settings.rows)}
    for name in SOLVERS:
        add(f"solve-{name}", "solve", f"solve:{name}", whole, "solves/s")
    return found


def _out(absent: dict[str, str]) -> set[str]:
    return {f"{work}-{name}" for name in absent for work in ("iteration", "solve")}


def _ratios(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    pairs = [("pass", other) for other in ("read", "exp", "pass-numpy", "pass-torch")]
    pairs += [("ensemble", other) for other in ("ensemble-numpy", "ensemble-torch")]
    pairs += [(f"{work}-fasttrain", f"{work}-{name}") for work in ("iteration", "solve") for name in SOLVERS]
    found = [ratio(outcomes, ours, theirs) for ours, theirs in pairs if ours != theirs]
    return [entry for entry in found if entry is not None]
