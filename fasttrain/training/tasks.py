"""Which task belongs to which settings, and to which command."""

from typing import Any

from fasttrain.training.adaptation.task import Adaptation, AdaptSettings
from fasttrain.training.classification import Classification
from fasttrain.training.co_teacher.task import CoTeaching
from fasttrain.training.objects.settings import ObjectSettings
from fasttrain.training.objects.task import ObjectMapping
from fasttrain.training.pretraining.settings import PretrainSettings
from fasttrain.training.pretraining.task import Pretraining
from fasttrain.training.segmentation.settings import SegmentSettings
from fasttrain.training.segmentation.task import Segmentation
from fasttrain.training.settings import RunSettings, TrainSettings
from fasttrain.training.task import Task

SETTINGS: dict[tuple[str, ...], type[RunSettings]] = {
    ("train",): TrainSettings,
    ("pretrain",): PretrainSettings,
    ("segment", "train"): SegmentSettings,
    ("segment", "adapt"): AdaptSettings,
    ("objects", "train"): ObjectSettings,
}


def task_of(settings: RunSettings) -> Task[Any]:
    """What a run of such settings learns."""
    if isinstance(settings, AdaptSettings):
        return Adaptation(settings)
    if isinstance(settings, SegmentSettings):
        return Segmentation(settings)
    if isinstance(settings, PretrainSettings):
        return Pretraining(settings)
    if isinstance(settings, ObjectSettings):
        return ObjectMapping(settings)
    assert isinstance(settings, TrainSettings)
    return CoTeaching(settings) if settings.co_teacher.weight else Classification(settings)
