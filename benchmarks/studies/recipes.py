"""The small recipes on real data: `fasttrain recipe run`, and the figures that its report has.

    python benchmarks/studies/recipes.py run pacs_rounds PACS_FOLDER LITE0.pth LITE1.pth
    python benchmarks/studies/recipes.py run pacs_rounds PACS_FOLDER LITE0.pth LITE1.pth \
        --targets photo art_painting cartoon sketch                      # each domain left out in turn
    python benchmarks/studies/recipes.py run pacs_context PACS_FOLDER LITE0.pth     # --targets, too
    python benchmarks/studies/recipes.py run noisy_cifar10 CIFAR10.tar.xz
    python benchmarks/studies/recipes.py run cifar10 CIFAR10.tar.xz
    python benchmarks/studies/recipes.py table                             # what is there, as Markdown

Nothing in the recipes was chosen by labels of their target sets; these are read by `evaluate` stages alone. Resumable:
an interrupted run goes on where it was, finished ones are kept in ``benchmarks/results/recipes.json`` by recipe and
settings, and are not run again. `--seeds` runs each with other seeds; `--set` is for other settings, and part of the
name: ``--set size=64``. The page of each run lies in its work folder, ``build/recipes/NAME/report.html``.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cifar10 import unpacked

from fasttrain.base.atomic import atomic_path
from fasttrain.tools.bench.measure import machine_facts, python_command

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "recipes.json"
WORK = ROOT / "build" / "recipes"
DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
SOURCES = {  # variables of each recipe that say where its data lie
    "pacs_rounds": ("data", "weights_lite0", "weights_lite1"),
    "pacs_context": ("data", "weights"),
    "noisy_cifar10": ("data",),
    "cifar10": ("data",),
}
# Columns of the table, and the stages of the recipes whose accuracy they show: the first one that was measured.
STEPS = {
    "a model": ("predict", "predict_baseline"),
    "mixing by masks": ("predict_a",),
    "co-teacher": ("predict_b",),
    "its versions": ("predict_c",),
    "shifted views": ("predict_shifted",),
    "ensemble": ("ensemble", "average"),
    "vote": ("vote",),
    "class counts known": ("known",),
    "estimated": ("estimated",),
}


def fasttrain(*arguments: object) -> dict[str, Any]:
    """The result of a command."""
    command = [*python_command("fasttrain.cli.app", *arguments), "--json"]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def recipe_file(twin: str) -> Path:
    """Where a recipe lies."""
    return ROOT / "recipes" / "small" / f"{twin}.yaml"


# --- running ----------------------------------------------------------------------------------------------------------


def data_of(twin: str, sources: list[Path]) -> list[str]:
    """The variables that say where the data lie."""
    names = SOURCES[twin]
    if len(sources) != len(names):
        sys.exit(f"{twin} needs {len(names)} sources, see the first lines of this file")
    if "cifar10" in twin:
        sources = [unpacked(sources[0])]
    return [f"{name}={path.absolute()}" for name, path in zip(names, sources, strict=True)]


def run(twin: str, sources: list[Path], chosen: list[str]) -> None:
    """Run a recipe, unless its figures are there, and keep them."""
    name, source = " ".join([twin, *chosen]), hashlib.sha256(recipe_file(twin).read_bytes()).hexdigest()[:12]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    entry = results["runs"].get(name)
    if entry is not None:
        if entry["recipe"] != source:
            sys.exit(f"{name} in {RESULTS} was measured with another {twin}.yaml; take it out there")
        print(f"{name}: is there already", flush=True)
        return
    out = WORK / name.replace("/", "_").replace(" ", ",")
    sets = [word for change in [*data_of(twin, sources), *chosen] for word in ("--set", change)]
    resumed, started = (out / "stages").exists(), time.monotonic()
    fasttrain("recipe", "run", recipe_file(twin), "--out", out, *sets)
    seconds = time.monotonic() - started
    figures = fasttrain("recipe", "report", recipe_file(twin), "--out", out, *sets)
    figures.pop("html")
    entry = {"recipe": source, "minutes": None if resumed else round(seconds / 60, 1), **figures}
    results["machine"], results["runs"][name] = machine_facts(), entry
    with atomic_path(RESULTS) as part:
        part.write_text(json.dumps(results, indent=2) + "\n")
    since = " since it went on" if resumed else ""
    print(f"{name}: {seconds / 60:.1f} minutes{since}; {out / 'report.html'}", flush=True)


# --- showing ----------------------------------------------------------------------------------------------------------


def table() -> str:
    """Top-1 of each recipe by round and step, in Markdown; several models or seeds of a step as their mean."""
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, entry in runs.items():  # seeds are one row
        words = [word for word in name.split() if not word.startswith(("seed=", "seeds="))]
        groups.setdefault(" ".join(words), []).append(entry)
    lines = [f"| recipe | round | {' | '.join(STEPS)} | minutes |", "|---" * (len(STEPS) + 3) + "|"]
    for name, entries in groups.items():
        for label in rounds_of(entries[0]):
            cells = [accuracy(entries, label, templates) for templates in STEPS.values()]
            minutes = [entry["minutes"] or entry["seconds"] / 60 for entry in entries]  # of stages, where it went on
            shown = f"{statistics.mean(minutes):.0f}" if label == rounds_of(entries[0])[-1] else ""
            lines.append(f"| {name} | {label} | {' | '.join(cells)} | {shown} |")
    return "\n".join(lines)


def rounds_of(entry: dict[str, Any]) -> list[str]:
    """Labels of the rounds that something was measured in; one without a name where there are none."""
    labels = [axes_of(one["stage"]).get("round", "") for one in entry["accuracies"]]
    return list(dict.fromkeys(label for label in labels if label)) or [""]


def accuracy(entries: list[dict[str, Any]], label: str, templates: tuple[str, ...]) -> str:
    """Mean top-1 of the labels that count."""
    values = [
        one["final"]
        for entry in entries
        for one in entry["accuracies"]
        if one["stage"].partition("[")[0] in templates and axes_of(one["stage"]).get("round", "") == label
    ]
    return f"{statistics.mean(values):.3f}" if values else ""


def axes_of(stage: str) -> dict[str, str]:
    """``predict[model=a,round=1]`` as {model: a, round: 1}."""
    pairs = (pair.partition("=") for pair in stage.partition("[")[2].rstrip("]").split(",") if pair)
    return {axis: label for axis, _, label in pairs}


def main() -> None:
    """What the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run")
    command.add_argument("twin", choices=list(SOURCES))
    command.add_argument("sources", nargs="+", type=Path)
    command.add_argument("--targets", nargs="+", choices=DOMAINS, default=[], help="of pacs_*")
    command.add_argument("--seeds", nargs="+", type=int, default=[])
    command.add_argument("--set", action="append", default=[], dest="overrides")
    commands.add_parser("table")
    given = parser.parse_args()
    if given.command == "table":
        print(table())
        return
    WORK.mkdir(parents=True, exist_ok=True)
    for target in given.targets or [None]:
        for seed in given.seeds or [None]:
            chosen = [f"target={target}"] if target else []
            chosen += [seed_of(given.twin, seed)] if seed is not None else []
            run(given.twin, given.sources, [*chosen, *given.overrides])


def seed_of(twin: str, seed: int) -> str:
    """The variable that a recipe has for its seed."""
    return f"seeds=[{seed}]" if twin == "cifar10" else f"seed={seed}"


if __name__ == "__main__":
    main()
