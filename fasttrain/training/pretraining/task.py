"""Pre-training as a task of the training loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import is_main, world_size
from fasttrain.inference.forward import Amp
from fasttrain.loading.loader import Loader
from fasttrain.training.classification import Classification, create_trained
from fasttrain.training.losses.criterion import Criterion
from fasttrain.training.pretraining.contrastive import ContrastCriterion, InfoNce, MomentumContrast
from fasttrain.training.pretraining.features import described, warning_of
from fasttrain.training.pretraining.masked import Given, MaskedAutoencoder
from fasttrain.training.pretraining.settings import PretrainSettings
from fasttrain.training.stepper import Stepper


class PretrainingStepper(Stepper):
    """Steps whose epochs end with a look at the features."""

    def take_figures(self) -> dict[str, Any]:
        """How the features of the epoch lie (see `fasttrain.training.pretraining.features`)."""
        assert isinstance(self.module, MomentumContrast | MaskedAutoencoder)
        figures = self.module.statistics.take()
        if figures and is_main():
            say(described(figures))
            warning = warning_of(figures)
            if warning is not None:
                say(warning)
        return dict(figures)


class Pretraining(Classification):
    """An encoder, without labels: what it learns from is the images themselves."""

    settings: PretrainSettings
    stepper = PretrainingStepper

    def __init__(self, settings: PretrainSettings) -> None:
        super().__init__(settings.here())

    @property
    def views(self) -> int:
        return self.settings.views

    def classes(self, loader: Loader) -> tuple[list[str] | None, int]:
        return None, 0  # whatever labels there are

    def make_model(self, num_classes: int, loader: Loader, begins: bool) -> nn.Module:
        settings = self.settings
        encoder = create_trained(settings, 0, self.eval_view.size)
        if settings.method == "moco":
            return MomentumContrast(encoder, _width(encoder, settings.model), settings.moco, settings.groups)
        return MaskedAutoencoder(encoder, settings.mae, fresh=not (settings.weights or settings.pretrained))

    def network(self, module: nn.Module) -> nn.Module:
        return module.get_submodule("encoder")

    def images_together(self, batch_size: int) -> int:
        settings = self.settings
        return max(1, min(batch_size, settings.micro_batch or batch_size) // settings.groups)

    def step_parts(
        self, module: nn.Module, num_classes: int, loader: Loader, device: torch.device, amp: Amp
    ) -> dict[str, Any]:
        _tell(self.settings)
        return {"loss": self._loss(module, loader.num_samples, device)}

    def record(self, names: Sequence[str] | None, loader: Loader) -> dict[str, Any]:
        return {"model": self.settings.model}

    def _loss(self, module: nn.Module, samples: int, device: torch.device) -> Criterion:
        """Of an epoch of so many samples."""
        settings = self.settings
        if not isinstance(module, MomentumContrast):
            return Criterion(Given())
        keys = settings.queue_for(samples)
        if keys > samples and is_main():
            say(f"a queue of {keys} keys is longer than an epoch, so that it holds earlier keys of the same images")
        return ContrastCriterion(InfoNce(module, settings.moco.temperature, keys, settings.seed, device))


def _width(encoder: nn.Module, name: str) -> int:
    """Length of an encoder's features."""
    width = getattr(encoder, "head_hidden_size", None) or getattr(encoder, "num_features", None)
    if not isinstance(width, int):
        raise ConfigError(f"{name} does not tell how many features it gives; take another model")
    return width


def _tell(settings: PretrainSettings) -> None:
    if not is_main():
        return
    images = settings.batch_size * world_size()
    rate = "" if settings.optimizer.lr is None else f", learning rate {settings.optimizer.lr:.3g}"
    say(f"{settings.method}: {images} images a step{rate}")
