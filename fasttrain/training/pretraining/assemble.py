"""From settings of pre-training to everything that a step needs."""

import torch
from torch import nn

from fasttrain.base.console import say
from fasttrain.base.errors import ConfigError
from fasttrain.base.process import is_main, world_size
from fasttrain.training.assemble import create_trained, placed, stepper_around, training_amp
from fasttrain.training.epochs import EpochTable
from fasttrain.training.freezing import freeze
from fasttrain.training.losses.criterion import Criterion
from fasttrain.training.pretraining.contrastive import ContrastCriterion, InfoNce, MomentumContrast
from fasttrain.training.pretraining.masked import Given, MaskedAutoencoder
from fasttrain.training.pretraining.settings import PretrainSettings
from fasttrain.training.size_check import check_sizes
from fasttrain.training.stepper import Stepper


def make_stepper(
    settings: PretrainSettings, device: torch.device, size: int, samples: int, table: EpochTable
) -> Stepper:
    """Model, optimizer and all else that a step needs, on `device`.

    Args:
        size: side of the images in pixels that the encoder is made for.
        samples: of an epoch.
        table: the run's epochs.

    Raises:
        ConfigError, WeightsError: the settings do not fit the model, the method or the device.
    """
    encoder = create_trained(settings, 0, size)
    freeze(encoder, settings.freeze)
    amp = training_amp(settings.amp, device)
    if settings.size_schedule is not None:
        check_sizes(settings.model, encoder.to(device), None, (shape.size for shape in table.shapes), device, amp)
    module: nn.Module
    if settings.method == "moco":
        contrast = MomentumContrast(encoder, _width(encoder, settings.model), settings.moco, settings.groups)
        module = placed(contrast, settings, device)
        keys = settings.queue_for(samples)
        if keys > samples and is_main():
            say(f"a queue of {keys} keys is longer than an epoch, so that it holds earlier keys of the same images")
        nce = InfoNce(contrast, settings.moco.temperature, keys, settings.seed, device)
        loss: Criterion = ContrastCriterion(nce)
    else:
        fresh = not (settings.weights or settings.pretrained)
        module = placed(MaskedAutoencoder(encoder, settings.mae, fresh), settings, device)
        loss = Criterion(Given())
    _tell(settings)
    return stepper_around(module, loss, settings.here(), device, amp, table)


def _width(encoder: nn.Module, name: str) -> int:
    """Length of an encoder's features."""
    width = getattr(encoder, "head_hidden_size", None) or getattr(encoder, "num_features", None)
    if not isinstance(width, int):
        raise ConfigError(f"{name} does not tell how many features it gives; take another model")
    return width


def _tell(settings: PretrainSettings) -> None:
    if not is_main():
        return
    here = settings.here()
    images = settings.batch_size * world_size()
    rate = "" if here.optimizer.lr is None else f", learning rate {here.optimizer.lr:.3g}"
    say(f"{settings.method}: {images} images a step{rate}")
