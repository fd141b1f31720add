"""The mixing of a run's images: from its settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fasttrain.base.process import rank
from fasttrain.loading.augment.mixing import Mixer, Mixing
from fasttrain.loading.batch import Batch
from fasttrain.loading.loader import Loader

if TYPE_CHECKING:
    from fasttrain.training.settings import TrainSettings


def make_mixer(settings: "TrainSettings", num_classes: int, loader: Loader) -> Mixer | None:
    """What mixes the batches of this process, None for nothing.

    Args:
        loader: of the training data.
    """
    mixing = _mixing(settings)
    return mixer_of(mixing, settings, num_classes, loader) if mixing.mixes else None


def mixer_of(mixing: Mixing, settings: "TrainSettings", num_classes: int, loader: Loader) -> Mixer:
    """What mixes the batches of a run in a given way."""
    return Mixer(
        mixing,
        num_classes,
        smoothing=settings.label_smoothing,
        seed=settings.seed,
        rank=rank(),
        mean=loader.view.mean,
        std=loader.view.std,
    )


def examples(
    settings: "TrainSettings", num_classes: int, loader: Loader, batch: Batch
) -> Iterator[tuple[str, Batch, Tensor | None]]:
    """A batch mixed in each of the ways of a run, all of it, for pictures: name, batch, and targets (B, C) or None."""
    for name, way in _mixing(settings).ways().items():
        given = batch if way.by_masks else Batch(*batch)
        copied = given._replace(images=batch.images.clone(memory_format=torch.preserve_format))
        yield (name, *mixer_of(way, settings, num_classes, loader)(copied, 0))


def _mixing(settings: "TrainSettings") -> Mixing:
    return Mixing(**{name: getattr(settings.augment, name) for name in Mixing.model_fields})


def mixing_conflict(settings: "TrainSettings") -> str | None:
    """What of a run's settings does not go with mixed images, as a sentence; None if all does."""
    augment, loss = settings.augment, settings.loss
    if not augment.mixes:
        return None
    if loss.needs.views > 1:
        return f"loss {loss.kind} compares views of one image, and mixup, cutmix and the like take two; leave one out"
    if not augment.mixes_labels:
        return None
    if settings.head.kind == "arcface" or not loss.needs.soft_targets:
        what = "head arcface" if settings.head.kind == "arcface" else f"loss {loss.kind}"
        return f"{what} needs one label for each image, and mixup, cutmix, spatial and spectral give two; leave one out"
    if settings.distill.teacher is not None and Path(settings.distill.teacher).suffix == ".arrow":
        return "a score table knows no mixed images; take a checkpoint as the teacher, or turn mixup and cutmix off"
    return None
