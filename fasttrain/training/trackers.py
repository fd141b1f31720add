"""Experiment trackers besides TensorBoard: Weights & Biases and MLflow, where they are installed."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fasttrain.base.errors import ConfigError

PROJECT = "fasttrain"


class Tracker(Protocol):
    """Where an epoch's figures go."""

    def log(self, figures: dict[str, float], epoch: int) -> None:
        """Record the figures of an epoch."""

    def close(self) -> None:
        """The run is over, or stopped."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise ConfigError where a tracker's package is missing."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"trackers: {name} is not installed (pip install {name})")


def open_trackers(names: Sequence[str], run: Path, config: dict[str, Any]) -> list[Tracker]:
    """The trackers of a run; a resumed run goes on where it was, by the name of its folder.

    Args:
        config: the run's settings, nested.
    """
    kinds: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {"wandb": _Wandb, "mlflow": _Mlflow}
    return [kinds[name](run, config) for name in names]


class _Wandb:
    def __init__(self, run: Path, config: dict[str, Any]) -> None:
        wandb = importlib.import_module("wandb")
        name = run.resolve().name
        self._run = wandb.init(project=PROJECT, name=name, id=name, resume="allow", dir=str(run), config=config)

    def log(self, figures: dict[str, float], epoch: int) -> None:
        self._run.log(figures, step=epoch)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, run: Path, config: dict[str, Any]) -> None:
        self._mlflow = importlib.import_module("mlflow")
        self._mlflow.set_experiment(PROJECT)
        name = run.resolve().name
        known = self._mlflow.search_runs(
            experiment_names=[PROJECT], filter_string=f"tags.mlflow.runName = '{name}'", output_format="list"
        )
        if known:
            self._mlflow.start_run(run_id=known[0].info.run_id)
            return
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_dict(config, "config.json")

    def log(self, figures: dict[str, float], epoch: int) -> None:
        self._mlflow.log_metrics(figures, step=epoch)

    def close(self) -> None:
        self._mlflow.end_run()
