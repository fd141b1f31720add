"""The data sets that a run is measured on: one that counts, and others by name."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from torch import nn

from fasttrain.inference.forward import Amp
from fasttrain.loading.loader import Loader
from fasttrain.training.task import Task

MAIN = "val"


class Validation:
    """Loaders of validation data by the name that their figures begin with: ``val``, ``val_NAME``. A context manager.

    Args:
        sources: data by name, in the order that they are measured in.
        open_loader: gives the loader of one.
        task: what the model is to do; it measures that.
        class_names, num_classes: of the model.

    Raises:
        FasttrainError: one is not labelled, or its classes are not those of the model.
    """

    def __init__(
        self,
        sources: dict[str, Any],
        open_loader: Callable[[str, Any], Loader],
        task: Task[Any],
        class_names: Sequence[str] | None,
        num_classes: int,
    ) -> None:
        self._task, self._class_names, self._num_classes = task, class_names, num_classes
        self.loaders: dict[str, Loader] = {}
        try:
            for name, data in sources.items():
                self.loaders[name] = loader = open_loader(name, data)
                task.check_validation(loader, class_names, num_classes)
        except BaseException:
            self.close()
            raise

    def __bool__(self) -> bool:
        return bool(self.loaders)

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of all data sets, in their order."""
        return tuple(loader.dataset.fingerprint for loader in self.loaders.values())

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Samples that this rank has left out, with the reasons."""
        return [entry for loader in self.loaders.values() for entry in loader.skipped]

    @property
    def figures(self) -> list[str]:
        """Names of what `measure` gives."""
        names = [f"{name}_{figure}" for name in self.loaders for figure in self._task.figures]
        return names + ([self.mean] if self._others else [])

    @property
    def mean(self) -> str:
        """What the mean over the named data sets is called."""
        return f"{MAIN}_mean_{self._task.main}"

    @property
    def _others(self) -> list[str]:
        return [name for name in self.loaders if name != MAIN]

    def measure(self, model: nn.Module, amp: Amp) -> dict[str, Any]:
        """Figures of `model` on every data set, and the mean over the named ones of the main figure."""
        figures: dict[str, Any] = {}
        for name in self.loaders:
            figures |= self.measure_one(name, model, amp)
        if self._others:
            main = [figures[f"{name}_{self._task.main}"] for name in self._others]
            figures[self.mean] = None if None in main else fmean(main)
        return figures

    def measure_one(self, name: str, model: nn.Module, amp: Amp) -> dict[str, Any]:
        """Figures of `model` on one data set."""
        label = "validate" if name == MAIN else name.replace("_", " ")
        result = self._task.measure(model, self.loaders[name], self._class_names, self._num_classes, amp, label)
        return {f"{name}_{key}": value for key, value in result.items()}

    def close(self) -> None:
        """Close all loaders."""
        for loader in self.loaders.values():
            loader.close()
