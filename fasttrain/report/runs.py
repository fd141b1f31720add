"""The runs below a folder: found, told of, compared, and moved to the trash."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fasttrain.base.errors import ConfigError
from fasttrain.base.runs import RunFolder
from fasttrain.report.figures import training_curves
from fasttrain.report.page import Page, Section, Table, Text, write_page
from fasttrain.report.tables import run_table

TRASH = ".trash"
MAIN = ("val_top1", "val_miou")  # the figures that runs are known by
_MANY = 1_000_000  # epochs, where a run does not tell


def find_runs(root: Path) -> dict[str, RunFolder]:
    """All runs below `root` by name, which is their folder's path from there; those in the trash are left out.

    Raises:
        ConfigError: there is no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder of runs; name the one that `train --out` writes to with --root")
    folders = sorted(path.parent for path in root.rglob("config.json") if (path.parent / "start.json").exists())
    names = {folder.relative_to(root).as_posix(): RunFolder(folder) for folder in folders}
    return {name: run for name, run in names.items() if TRASH not in Path(name).parts}


def named_runs(root: Path, names: Sequence[str]) -> dict[str, RunFolder]:
    """The runs of exactly these names.

    Raises:
        ConfigError: there is none of a name.
    """
    runs = find_runs(root)
    for name in names:
        if name not in runs:
            known = ", ".join(runs) or "none"
            raise ConfigError(f"there is no run {name!r} in {root}; the runs there: {known}")
    return {name: runs[name] for name in names}


def summary(name: str, run: RunFolder) -> dict[str, Any]:
    """What a list tells about a run.

    `state` is "running", "finished", or "stopped" (by a signal, an error, or a machine that went down).
    """
    config, start, metrics = run.read_json("config.json"), run.read_json("start.json"), run.read_metrics()
    last, epochs = metrics[-1] if metrics else {}, config.get("epochs")
    done = int(last.get("epoch", -1)) + 1
    best = {key: max((line[key] for line in metrics if line.get(key) is not None), default=None) for key in MAIN}
    state = "finished" if done >= (epochs or _MANY) else "running" if run.is_alive() else "stopped"
    return {
        "name": name,
        "state": state,
        "model": config.get("model"),
        "epochs": epochs,
        "done": done,
        "train_loss": last.get("train_loss"),
        "top1": last.get("val_top1"),
        "best_top1": best["val_top1"],
        "miou": last.get("val_miou"),
        "best_miou": best["val_miou"],
        "images_per_s": last.get("images_per_s"),
        "started": start.get("started"),
    }


def details(name: str, run: RunFolder) -> dict[str, Any]:
    """Everything that a run's folder tells: summary, settings, start, epochs and files (bytes)."""
    return {
        **summary(name, run),
        "settings": flat(run.read_json("config.json")),
        "start": run.read_json("start.json"),
        "epochs_recorded": run.read_metrics(),
        "files": {path.name: path.stat().st_size for path in sorted(run.path.iterdir()) if path.is_file()},
    }


def differences(runs: dict[str, RunFolder]) -> dict[str, dict[str, Any]]:
    """Settings in which runs differ: each with its value by run (None where a run does not have it)."""
    settings = {name: flat(run.read_json("config.json")) for name, run in runs.items()}
    keys = dict.fromkeys(key for values in settings.values() for key in values if key != "out")
    # A group that one run has empty, as `flat` gives it, says nothing beside its members in another one.
    leaves = [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]
    table = {key: {name: values.get(key) for name, values in settings.items()} for key in leaves}
    return {key: values for key, values in table.items() if len({repr(value) for value in values.values()}) > 1}


def write_comparison(runs: dict[str, RunFolder], out: Path) -> Path:
    """A page with the runs' figures, their curves laid over each other, and the settings in which they differ.

    Raises:
        ConfigError: none of them has finished an epoch.
    """
    metrics = {name: run.read_metrics() for name, run in runs.items()}
    try:
        curves = training_curves(metrics)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    rows = [[key, *(str(values[name]) for name in runs)] for key, values in differences(runs).items()]
    settings = Table(["setting", *runs], rows, left=len(runs) + 1) if rows else Text("Their settings are the same.")
    sections = [
        Section("Last epochs", [run_table(metrics)]),
        Section("Curves", [curves]),
        Section("Settings that differ", [settings]),
    ]
    return write_page(Page("Runs compared", ", ".join(runs), sections), out)


def move_to_trash(root: Path, names: Sequence[str], *, force: bool = False) -> dict[str, Path]:
    """Move runs to ``ROOT/.trash/TIME/NAME``; where each lies then.

    Raises:
        ConfigError: there is no run of a name (nothing is moved then), or one is running and `force` is False.
    """
    runs = named_runs(root, names)
    alive = [name for name, run in runs.items() if not force and summary(name, run)["state"] == "running"]
    if alive:
        raise ConfigError(f"{alive[0]} is running; stop it first (Ctrl-C keeps its state), or add --force")
    trash = root / TRASH / time.strftime("%Y-%m-%d-%H%M%S")
    moved = {}
    for name, run in runs.items():
        place = _free(trash / name)
        place.parent.mkdir(parents=True, exist_ok=True)
        run.path.rename(place)
        moved[name] = place
    return moved


def _free(path: Path) -> Path:
    """`path`, with a number behind it if that is taken."""
    names = (path.with_name(f"{path.name}-{number}") for number in range(2, 1000))
    return path if not path.exists() else next(name for name in names if not name.exists())


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value})
    return result
