"""What a run learns: all that classification and segmentation do each in their own way."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import nn

from fasttrain.inference.forward import Amp
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader
from fasttrain.loading.order import Sampling
from fasttrain.loading.views import EvalView, TrainView
from fasttrain.training.settings import RunSettings
from fasttrain.training.stepper import Stepper

SettingsT = TypeVar("SettingsT", bound=RunSettings)


class Task(ABC, Generic[SettingsT]):
    """A task, with the settings of a run.

    Attributes:
        figures: names of what is measured on validation data.
        main: the one of them that the best epoch is known by.
        settings: of the run.
        eval_view: that validation data are seen in.
        stepper: what takes the steps.
        views: of each training image.
        masks: whether training goes by masks.
    """

    figures: ClassVar[tuple[str, ...]]
    main: ClassVar[str]
    stepper: ClassVar[type[Stepper]] = Stepper

    def __init__(self, settings: SettingsT, eval_view: EvalView) -> None:
        self.settings, self.eval_view = settings, eval_view

    @property
    def views(self) -> int:
        return 1

    @property
    def masks(self) -> bool:
        return False

    # --- data -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def train_view(self) -> TrainView:
        """The view of training images."""

    @abstractmethod
    def sampling(self) -> Sampling:
        """Which samples make an epoch."""

    @abstractmethod
    def order(self) -> dict[str, Any]:
        """The loader's `order`, `window` and `rest`."""

    def batches(self, loader: Loader, open_loader: Callable[..., Loader]) -> Loader:
        """What training takes its batches from.

        Args:
            loader: of the training data.
            open_loader: opens another one, from data, a file of ids (or None) and what differs from that loader.
        """
        return loader

    @abstractmethod
    def classes(self, loader: Loader) -> tuple[list[str] | None, int]:
        """Names and number of the classes of the training data.

        Raises:
            FasttrainError: they cannot be learned from.
        """

    def validation_indices(self, data: str | list[str], ids: Sequence[str] | None) -> Any:
        """Which samples of validation data are measured, and in which order, as the `Loader` takes them.

        Args:
            ids: those that were asked for; None for all.
        """
        return ids

    @abstractmethod
    def check_validation(self, loader: Loader, names: Sequence[str] | None, num_classes: int) -> None:
        """Refuse validation data that `measure` could not be used on.

        Raises:
            FasttrainError: they are not labelled, or have other classes.
        """

    @abstractmethod
    def measure(
        self, model: nn.Module, loader: Loader, names: Sequence[str] | None, num_classes: int, amp: Amp, label: str
    ) -> dict[str, Any]:
        """What the model is worth on validation data: `figures`, and maybe more."""

    @abstractmethod
    def sample_grid(self, batch: Batch, loader: Loader) -> np.ndarray:
        """A picture, uint8 (H, W, 3), of what the model gets to see."""

    # --- the model --------------------------------------------------------------------------------------------------

    @abstractmethod
    def make_model(self, num_classes: int, loader: Loader, begins: bool) -> nn.Module:
        """The model as training begins with it, on the CPU.

        Args:
            loader: of the training data.
            begins: False for a run that is resumed, whose weights come from elsewhere.

        Raises:
            ConfigError, WeightsError: the settings do not fit the model or the weights.
        """

    def trained(self, module: nn.Module) -> nn.Module:
        """What steps call, from the model; DDP and the compiler come around it."""
        return module

    def network(self, module: nn.Module) -> nn.Module:
        """The part of the model that names in settings are of, and that checkpoints keep."""
        return module

    def images_together(self, batch_size: int) -> int:
        """Images that pass through the model at a time."""
        return min(self.views * batch_size, self.settings.micro_batch or self.views * batch_size)

    @abstractmethod
    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        """Loss and what else of a `Stepper` is the task's, by its names; `module` is the model, on its device."""

    @abstractmethod
    def record(self, names: list[str] | None, loader: Loader) -> dict[str, Any]:
        """What of a checkpoint's record is the task's, by its names."""
