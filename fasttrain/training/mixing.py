"""The mixing of a run's images: from its settings."""

from pathlib import Path
from typing import TYPE_CHECKING

from fasttrain.base.process import rank
from fasttrain.loading.augment.mixing import Mixer, Mixing
from fasttrain.loading.loader import Loader

if TYPE_CHECKING:
    from fasttrain.training.settings import TrainSettings


def make_mixer(settings: "TrainSettings", num_classes: int, loader: Loader) -> Mixer | None:
    """What mixes the batches of this process, None for nothing.

    Args:
        loader: of the training data.
    """
    mixing = Mixing(**{name: getattr(settings.augment, name) for name in Mixing.model_fields})
    if not mixing.mixes:
        return None
    return Mixer(
        mixing,
        num_classes,
        smoothing=settings.label_smoothing,
        seed=settings.seed,
        rank=rank(),
        mean=loader.view.mean,
        std=loader.view.std,
    )


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
        return f"{what} needs one label for each image, and mixup, cutmix and spectral give two; leave one out"
    if settings.distill.teacher is not None and Path(settings.distill.teacher).suffix == ".arrow":
        return "a score table knows no mixed images; take a checkpoint as the teacher, or turn mixup and cutmix off"
    return None
