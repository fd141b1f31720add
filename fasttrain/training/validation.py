"""The data sets that a run is measured on: one that counts, and others by name."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from torch import nn

from fasttrain.base.errors import TrainingError
from fasttrain.inference.evaluate import evaluate
from fasttrain.inference.forward import Amp
from fasttrain.inference.labels import class_map
from fasttrain.loading.loader import Loader

MAIN = "val"
FIGURES = ("top1", "top5", "loss", "macro_f1")


class Validation:
    """Loaders of validation data by the name that their figures begin with: ``val``, ``val_NAME``. A context manager.

    Args:
        sources: data by name, in the order that they are measured in.
        open_loader: gives the loader of one.
        class_names, num_classes: of the model.

    Raises:
        TrainingError: one holds no labelled sample.
        ClassMismatchError: the classes of one are not those of the model.
    """

    def __init__(
        self,
        sources: dict[str, Any],
        open_loader: Callable[[str, Any], Loader],
        class_names: Sequence[str] | None,
        num_classes: int,
    ) -> None:
        self._class_names, self._num_classes = class_names, num_classes
        self.loaders: dict[str, Loader] = {}
        try:
            for name, data in sources.items():
                self.loaders[name] = loader = open_loader(name, data)
                _check_labelled(loader)
                class_map(loader.class_names, class_names, num_classes)
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
        names = [f"{name}_{figure}" for name in self.loaders for figure in FIGURES]
        return names + (["val_mean_top1"] if self._others else [])

    @property
    def _others(self) -> list[str]:
        return [name for name in self.loaders if name != MAIN]

    def measure(self, model: nn.Module, amp: Amp) -> dict[str, Any]:
        """Figures of `model` on every data set, and the mean top-1 of the named ones (``val_mean_top1``)."""
        figures: dict[str, Any] = {}
        for name in self.loaders:
            figures |= self.measure_one(name, model, amp)
        if self._others:
            figures["val_mean_top1"] = fmean(figures[f"{name}_top1"] for name in self._others)
        return figures

    def measure_one(self, name: str, model: nn.Module, amp: Amp) -> dict[str, Any]:
        """Figures of `model` on one data set."""
        label = "validate" if name == MAIN else name.replace("_", " ")
        result = evaluate(model, self.loaders[name], self._num_classes, self._class_names, amp, label)
        return {f"{name}_{key}": result[key] for key in FIGURES}

    def close(self) -> None:
        """Close all loaders."""
        for loader in self.loaders.values():
            loader.close()


def _check_labelled(loader: Loader) -> None:
    if not (loader.labels >= 0).any():
        raise TrainingError(
            f"{loader.dataset.name} holds no labelled sample, so there is nothing to validate on; leave it out, or "
            "build it with labels"
        )
