"""A run that learns to map objects, from settings to checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path

from fasttrain.base.runs import RunFolder
from fasttrain.models.objects.opened import Shows
from fasttrain.models.weights import read_metadata
from fasttrain.training.objects.settings import ObjectSettings
from fasttrain.training.run import LAST, train


@dataclass(frozen=True)
class ObjectResult:
    """What `train_mapper` returns; the figures are those of the last epoch.

    Attributes:
        shows: what lies where the maps are high: ``objects``, or ``background``, and then masks take the reverse.
        border, inside: means of the maps at their border and within, by which that is known.
    """

    run: Path
    checkpoint: Path
    epochs: int
    train_loss: float
    shows: Shows
    border: float
    inside: float
    images_per_s: float
    data_wait_fraction: float
    skipped: list[dict[str, str]] = field(default_factory=list)


def train_mapper(settings: ObjectSettings, *, resume: bool = False) -> ObjectResult:
    """Learn maps of objects without labels; under torchrun every process calls this with the same settings.

    Args:
        resume: go on from the state in the run's folder; where there is none yet, begin.

    Raises:
        FasttrainError: as `fasttrain.training.run.train`; the model has no features of that stride.
    """
    done = train(settings, resume=resume)
    stored = read_metadata(done.checkpoint)["objects"]
    return ObjectResult(
        run=done.run,
        checkpoint=done.run / LAST,
        epochs=done.epochs,
        train_loss=RunFolder(done.run).read_metrics()[-1]["train_loss"],
        shows=stored["shows"],
        border=stored["border"],
        inside=stored["inside"],
        images_per_s=done.images_per_s,
        data_wait_fraction=done.data_wait_fraction,
        skipped=done.skipped,
    )
